"""How pictures enter a network and come back."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from revgraph.errors import RevgraphError
from revgraph.pair import Compiled
from revgraph.recipe import Recipe

LONGEST = 8
"""How many times its shorter side a picture's longer one may be, where it keeps its shape."""


class NoPicturesError(RevgraphError):
    """The network does not take pictures of the recipe's kind, or of any shape."""


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
        if self._dtype.kind == "f" and recipe.largest > (most := float(np.finfo(self._dtype).max)):
            made = f"recipe '{recipe.name}' makes numbers up to {recipe.largest:,.0f}"
            why = f"{made}, and {self._dtype} ends at {most:,.0f}"
            raise NoPicturesError("cannot feed pictures to this network", why, "choose another with --recipe")
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
