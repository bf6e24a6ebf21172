"""From a picture to the picture that explains it: preprocess, forward, choose the neuron, reverse, draw."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from revgraph import neuron, picture
from revgraph.errors import RevgraphError
from revgraph.neuron import Neuron, Peak
from revgraph.recipe import Recipe
from revgraph.session import Session, Trace

REDRAWS = 20
"""How often `random` tries another neuron where x_hat comes out all zero."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One neuron of one picture, reversed.

    Attributes:
        crop: What the network saw, RGB.
        x_hat: float32 (3, H, W), RGB.
        neuron: What was asked for.
        peak: The channel, position and score that p stands for.
        label: The class's name, where y has one channel per class.
        probability: The network's own output for that class, where it is one.
        vanished: The forward layer below which nothing was left, where x_hat is all zero.
    """

    crop: Image.Image
    x_hat: np.ndarray
    neuron: Neuron
    peak: Peak
    label: str | None
    probability: float | None
    vanished: str | None

    @property
    def summary(self) -> str:
        """The class or channel, and its score."""
        channel, position, score = self.peak
        if channel is None:
            return str(self.neuron)
        name = f"channel {channel}" if self.label is None else f"{self.label} ({channel})"
        where = "" if position is None else f" at {', '.join(map(str, position))}"
        chance = "" if self.probability is None else f", probability {self.probability:.2f}"
        return f"{name}{where}, score {score:.4g}{chance}"

    def draw(self, caption: str) -> Image.Image:
        """The input, the tone-mapped x_hat and the saliency map side by side."""
        return picture.explain(self.crop, self.x_hat, f"{caption}: {self.summary}")


class Explainer:
    """Explains pictures with one session and one recipe.

    Raises:
        RevgraphError: The network does not take pictures of the recipe's kind.
    """

    def __init__(self, session: Session, recipe: Recipe) -> None:
        self.session, self.recipe = session, recipe
        shape = session.x_shape
        self._channels_last = len(shape) == 4 and shape[3] == len(recipe.channels) != shape[1]
        self.size = _picture_size([shape[i] for i in (0, 3, 1, 2)] if self._channels_last else shape, recipe)
        y = next(o for o in session.pair.light_forward.model.graph.output if o.name == session.pair.at)
        channels = [dim.dim_value for dim in y.type.tensor_type.shape.dim][1:2]
        counted = recipe.labels is not None and channels == [recipe.labels.count]
        self._names = (counted and recipe.class_names()) or ()

    def feed(self, image: Image.Image) -> np.ndarray:
        """The picture as the network takes it, (1, C, H, W) or (1, H, W, C)."""
        x = self.recipe.feed(image, self.size).astype(self.session.x_dtype)
        return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if self._channels_last else x

    def rgb(self, x_hat: np.ndarray) -> np.ndarray:
        """One image's x_hat, (C, H, W) or (H, W, C), in RGB order: (3, H, W)."""
        return self.recipe.rgb(np.moveaxis(x_hat, -1, 0) if self._channels_last else x_hat)

    def explain(
        self, image: Image.Image, neurons: Sequence[Neuron], rng: np.random.Generator
    ) -> Iterator[Explanation]:
        """One explanation per neuron; the forward graph runs once and the reversed graph on all of them."""
        trace = self.session.forward(self.feed(image))
        p = np.concatenate([neuron.project(n, trace.y, rng) for n in neurons])
        x_hat = self.session.reverse(trace, p)
        for row, chosen in enumerate(neurons):
            for _ in range(REDRAWS if chosen.kind == "random" and not x_hat[row].any() else 0):
                p[row] = neuron.project(chosen, trace.y, rng)[0]
                x_hat[row] = self.session.reverse(trace, p[row : row + 1])[0]
                if x_hat[row].any():
                    break
            yield self._explanation(image, trace, chosen, p[row], x_hat[row])

    def _explanation(
        self, image: Image.Image, trace: Trace, chosen: Neuron, p: np.ndarray, x_hat: np.ndarray
    ) -> Explanation:
        peak = neuron.describe(p, trace.y[0])
        classes = self._names if len(self._names) == trace.y.shape[1] else ()
        label = classes[peak.channel] if classes and peak.channel is not None else None
        return Explanation(
            self.recipe.crop(image, self.size),
            self.rgb(x_hat),
            chosen,
            peak,
            label,
            None if label is None else _probability(trace, peak.channel),
            None if x_hat.any() else self.session.vanishes_after(trace, p[None]),
        )


def _picture_size(shape: Sequence[int | str | None], recipe: Recipe) -> tuple[int, int]:
    what = "cannot feed pictures to this network"
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != len(recipe.channels)):
        why = f"its input is {list(shape)} and recipe '{recipe.name}' makes (N, {len(recipe.channels)}, H, W)"
        raise RevgraphError(what, why, "choose another with --recipe, or use revgraph.Session from Python")
    if isinstance(shape[0], int) and shape[0] != 1:
        why = f"its batch is fixed at {shape[0]}"
        raise RevgraphError(
            what, why, "export it with batch 1 or a free one, or use revgraph.Session from Python"
        )
    height, width = shape[2:]
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    if recipe.size is None:
        raise RevgraphError(what, "neither it nor the recipe fixes their size", "give size in the recipe")
    return recipe.size


def _probability(trace: Trace, channel: int | None) -> float | None:
    """The first output's value for the class, if that output is a distribution over the classes."""
    first = next(iter(trace.outputs.values()))[0]
    flat = first.reshape(-1)
    if channel is None or first.shape[0] != trace.y.shape[1] or flat.size != first.shape[0]:
        return None
    return float(flat[channel]) if flat.min() >= 0 and abs(flat.sum() - 1) < 1e-3 else None


PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def find_pictures(paths: Iterable[str]) -> list[Path]:
    """The pictures named; a folder stands for all pictures in it.

    Raises:
        RevgraphError: A folder holds none.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = (
            sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES) if path.is_dir() else [path]
        )
        if not inside:
            raise RevgraphError(
                f"no pictures in '{path}'", "no file ends in " + ", ".join(PICTURES), "name files"
            )
        found += inside
    return found


def output_paths(out: Path, pictures: Sequence[Path], variant: str, neurons: Sequence[Neuron]) -> list[Path]:
    """Where each neuron of each picture goes: `out` itself if there is one in all, else files in that folder.

    Raises:
        RevgraphError: `out` names one picture, and there are several.
    """
    if out.suffix.lower() in PICTURES and not out.is_dir():
        if len(pictures) * len(neurons) > 1:
            count = len(pictures) * len(neurons)
            raise RevgraphError(
                f"cannot write to '{out}'", f"there are {count} results", "name a folder with -o"
            )
        return [out]
    specs = [f".{_slug(str(n))}" for n in neurons] if len(neurons) > 1 else [""]
    taken: dict[str, Path] = {}
    for path, spec in itertools.product(pictures, specs):
        stems = itertools.chain([path.stem], (f"{path.stem}_{i}" for i in itertools.count(2)))
        names = (f"{stem}.{variant}{spec}.png" for stem in stems)
        # Some file systems do not tell upper case from lower.
        name = next(name for name in names if name.lower() not in taken)
        taken[name.lower()] = out / name
    return list(taken.values())


def _slug(spec: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(spec).name)
