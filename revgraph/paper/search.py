"""The pictures that excite a channel most, and what of them did (Zeiler and Fergus; Sect. 3.3)."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from revgraph import parallel
from revgraph.dataset import places
from revgraph.errors import RevgraphError, naming
from revgraph.finite import NotFiniteError
from revgraph.neuron import Neuron
from revgraph.paper import receptive, sheet
from revgraph.paper.subject import Subject
from revgraph.variants import title


@dataclass(frozen=True, slots=True)
class Hit:
    """A picture, and where the channel was strongest in it.

    Attributes:
        path: The picture.
        score: The channel's largest value.
        position: Where that is; empty where the layer has no spatial axes.
    """

    path: str
    score: float
    position: tuple[int, ...]


Found = Hit | RevgraphError
"""Or why a picture cannot be read, or the network makes no finite numbers of it."""


def look(subject: Subject, variant: str, at: str, channel: int, pictures: Iterable[str]) -> Iterator[Found]:
    """How much each picture excites the channel, in their order; several are looked at at once.

    Raises:
        RevgraphError: The layer has no such channel.
    """
    explainer = subject.explainer(variant, at)

    def found(path: str) -> Found:
        try:
            x = explainer.feed(places.read(path))
        except RevgraphError as error:
            return error
        try:
            with naming(path):
                (y,) = explainer.session.forward(x).y
        except NotFiniteError as error:
            return error
        if channel >= y.shape[0]:
            why, remedy = f"'{at}' has {y.shape[0]}", f"0 to {y.shape[0] - 1}"
            raise RevgraphError(f"there is no channel {channel}", why, remedy)
        position = tuple(int(i) for i in np.unravel_index(int(y[channel].argmax()), y.shape[1:]))
        return Hit(path, float(y[channel].max()), position)

    return parallel.in_order(found, pictures, parallel.cores())


def strongest(found: Iterable[Found], top: int) -> list[Hit]:
    """The pictures that excite the channel most, the strongest first.

    Raises:
        RevgraphError: No picture could be read; it says why of one.
    """
    hits, refused = list[Hit](), None
    for each in found:
        if isinstance(each, RevgraphError):
            refused = each
        else:  # of equals the first, and no more in memory than are wanted
            hits = sorted([*hits, each], key=lambda hit: -hit.score)[:top]
    if not hits and refused is not None:
        raise refused
    return hits


def figure(subject: Subject, variant: str, at: str, channel: int, hits: Sequence[Hit]) -> sheet.Figure:
    """Two square sheets side by side: the receptive fields reversed, and as they are in the pictures."""
    explainer = subject.explainer(variant, at)
    reversed_, cropped, numbers = list[Image.Image](), list[Image.Image](), []
    for hit in hits:
        chosen = Neuron("index", (channel, *hit.position))
        with naming(hit.path, NotFiniteError):
            (found,) = explainer.explain(places.read(hit.path), [chosen], np.random.default_rng(0))
        rows, columns = receptive.field(
            subject.path, subject.x.name, explainer.size, explainer.session.pair.at, hit.position
        )
        reversed_.append(sheet.tone(found.x_hat[:, rows, columns]))
        cropped.append(found.crop.crop((columns.start, rows.start, columns.stop, rows.stop)))
        numbers.append(
            {
                "path": hit.path,
                "score": hit.score,
                "position": " ".join(map(str, hit.position)),
                "top": rows.start,
                "bottom": rows.stop,
                "left": columns.start,
                "right": columns.stop,
            }
        )
    side = math.ceil(math.sqrt(len(hits)))
    blank = [None] * (side * side - len(hits))
    largest = max(max(tile.size) for tile in cropped)  # at the picture's border a field is cut
    left, right = (
        [*(ImageOps.pad(tile, (largest, largest), color="white") for tile in tiles), *blank]
        for tiles in (reversed_, cropped)
    )
    tiles = [[*left[i : i + side], None, *right[i : i + side]] for i in range(0, side * side, side)]
    heads = [f"{title(variant)}", *[""] * side, "in the pictures", *[""] * (side - 1)]
    caption = f"Channel {channel} of {at}: what excites it most, the strongest first. {subject.name}."
    return sheet.Figure(sheet.grid(tiles, [""] * side, heads, caption), numbers)
