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
from revgraph.pair import Compiled
from revgraph.recipe import Recipe
from revgraph.session import Session, Trace

LONGEST = 8
"""How many times its shorter side a picture's longer one may be, where it keeps its shape."""

REDRAWS = 20
"""How often `random` tries another neuron where x_hat comes out all zero."""


class NoPicturesError(RevgraphError):
    """The network does not take pictures of the recipe's kind, or of any shape."""


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


class Feeder:
    """How pictures enter a network and come back, and what it calls them.

    Args:
        pair: The network's compilation.
        recipe: How pictures are fed.
        shorter: A picture keeps its shape and its shorter side is so many pixels; None cuts it to the
            network's size.

    Attributes:
        size: What the network is fed, (H, W), where pictures do not keep their shape.

    Raises:
        NoPicturesError: The network takes none of the recipe's kind, or of any shape.
        RevgraphError: The recipe's class names cannot be read.
    """

    def __init__(self, pair: Compiled, recipe: Recipe, shorter: int | None = None) -> None:
        self.recipe, self.shorter, self._dtype = recipe, shorter, pair.x_dtype
        shape = pair.x_shape
        self._channels_last = len(shape) == 4 and shape[3] == len(recipe.channels) != shape[1]
        fed = [shape[i] for i in (0, 3, 1, 2)] if self._channels_last else shape
        self.size = picture_size(fed, recipe, shorter)
        counted = recipe.labels is not None and pair.y_channels == recipe.labels.count
        self._names = (counted and recipe.class_names()) or ()

    def size_of(self, image: Image.Image) -> tuple[int, int]:
        """What a picture becomes, (H, W).

        Raises:
            RevgraphError: It keeps its shape, and that is very long.
        """
        return self.size if self.shorter is None else kept_shape(image, self.shorter)

    def crop(self, image: Image.Image) -> Image.Image:
        """What the network sees of a picture, RGB."""
        return self.recipe.crop(image, self.size_of(image))

    def feed(self, image: Image.Image) -> np.ndarray:
        """The picture as the network takes it, (1, C, H, W) or (1, H, W, C)."""
        x = self.recipe.feed(image, self.size_of(image)).astype(self._dtype)
        return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if self._channels_last else x

    def rgb(self, x_hat: np.ndarray) -> np.ndarray:
        """One image's x_hat, (C, H, W) or (H, W, C), in RGB order: (3, H, W)."""
        return self.recipe.rgb(np.moveaxis(x_hat, -1, 0) if self._channels_last else x_hat)

    def label(self, channel: int | None) -> str | None:
        """What the recipe calls a channel of y, where y has one for each of its classes."""
        return self._names[channel] if self._names and channel is not None else None


class Explainer(Feeder):
    """Explains pictures with one session and one recipe.

    Args:
        session: Runs the network.
        recipe: As for Feeder, like what is raised.
        shorter: As for Feeder.
    """

    def __init__(self, session: Session, recipe: Recipe, shorter: int | None = None) -> None:
        super().__init__(session.pair, recipe, shorter)
        self.session = session

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
        label = self.label(peak.channel)
        return Explanation(
            self.crop(image),
            self.rgb(x_hat),
            chosen,
            peak,
            label,
            None if label is None else probability(next(iter(trace.outputs.values()))[0], trace.y[0], peak),
            None if x_hat.any() else self.session.vanishes_after(trace, p[None]),
        )


def kept_shape(image: Image.Image, shorter: int) -> tuple[int, int]:
    """(H, W) of a picture scaled to that shorter side.

    Raises:
        RevgraphError: It is very long.
    """
    sides = image.height, image.width
    if max(sides) > LONGEST * min(sides):
        why = f"it is {image.width} x {image.height}"
        raise RevgraphError("cannot feed this picture whole", why, f"cut it to at most {LONGEST} : 1")
    height, width = (round(side * shorter / min(sides)) for side in sides)
    return height, width


def picture_size(shape: Sequence[int | str | None], recipe: Recipe, shorter: int | None) -> tuple[int, int]:
    """(H, W) of what a network of that input (N, C, H, W) is fed.

    Raises:
        NoPicturesError: It takes none of the recipe's kind, or of any shape.
    """
    what = "cannot feed pictures to this network"
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != len(recipe.channels)):
        why = f"its input is {list(shape)} and recipe '{recipe.name}' makes (N, {len(recipe.channels)}, H, W)"
        raise NoPicturesError(what, why, "choose another with --recipe, or use revgraph.Session from Python")
    if isinstance(shape[0], int) and shape[0] != 1:
        why = f"its batch is fixed at {shape[0]}"
        raise NoPicturesError(
            what, why, "export it with batch 1 or a free one, or use revgraph.Session from Python"
        )
    height, width = shape[2:]
    if shorter is not None:
        if isinstance(height, int) or isinstance(width, int):
            why = f"it takes {width} x {height} alone"
            raise NoPicturesError(f"{what} whole", why, "compile it with --fully-convolutional")
        return shorter, shorter
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    if recipe.size is None:
        raise NoPicturesError(what, "neither it nor the recipe fixes their size", "give size in the recipe")
    return recipe.size


def probability(first: np.ndarray, y: np.ndarray, peak: Peak) -> float | None:
    """The network's first output for the class, if that output is a distribution over the classes.

    Args:
        first: Of one image, (C, ...).
        y: Of that image, (C, ...).
        peak: Whose channel is the class.
    """
    flat = first.reshape(-1)
    if peak.channel is None or first.shape[:1] != y.shape[:1] or flat.size != y.shape[0]:
        return None
    return float(flat[peak.channel]) if flat.min() >= 0 and abs(flat.sum() - 1) < 1e-3 else None


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
    return paths_in(out, pictures, [f".{variant}{spec}.png" for spec in specs])


def paths_in(folder: Path, pictures: Sequence[Path], ends: Sequence[str]) -> list[Path]:
    """For each picture, and each end of a name, a file of its own in the folder."""
    taken: dict[str, Path] = {}
    for path, end in itertools.product(pictures, ends):
        stems = itertools.chain([path.stem], (f"{path.stem}_{i}" for i in itertools.count(2)))
        # Some file systems do not tell upper case from lower.
        name = next(name for name in (stem + end for stem in stems) if name.lower() not in taken)
        taken[name.lower()] = folder / name
    return list(taken.values())


def _slug(spec: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(spec).name)
