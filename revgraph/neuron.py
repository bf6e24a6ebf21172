"""The projections p: which neurons of y to explain. Spelled SPEC on the command line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from revgraph import finite
from revgraph.errors import RevgraphError
from revgraph.reading import check_ordinary

Array = npt.NDArray[Any]
Position = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Neuron:
    """A parsed SPEC.

    Attributes:
        kind: A key of KINDS, or "file".
        numbers: What follows the colon: a channel, then its position.
        file: The .npy file of kind "file".
    """

    kind: str
    numbers: tuple[int, ...] = ()
    file: str = ""

    def __str__(self) -> str:
        return self.file or self.kind + (":" + ",".join(map(str, self.numbers)) if self.numbers else "")


class Peak(NamedTuple):
    """What a caption says of a projection: None where it does not apply.

    Attributes:
        channel: The only channel that p touches.
        position: Where, if p is a single neuron of a y with spatial axes.
        score: y's value at that neuron, or its largest in that channel.
    """

    channel: int | None
    position: Position | None
    score: float | None

    @property
    def neuron(self) -> Neuron:
        """The same single neuron, by its place."""
        if self.channel is None:
            raise ValueError("no single neuron")
        return Neuron("index", (self.channel, *(self.position or ())))


# ----- One image: y (C, *spatial) to p of the same shape and dtype -----

Row = Callable[[Neuron, Array, np.random.Generator], Array]


def _max(neuron: Neuron, y: Array, rng: np.random.Generator) -> Array:
    return _one_hot(y, _largest(y))


def _channel(neuron: Neuron, y: Array, rng: np.random.Generator) -> Array:
    (c,) = neuron.numbers
    _within(neuron, (c,), y.shape[:1])
    return _one_hot(y, (c, *_largest(y[c])))


def _centre(neuron: Neuron, y: Array, rng: np.random.Generator) -> Array:
    middle = _middle(y)
    return _one_hot(y, (int(np.argmax(np.moveaxis(y, 0, -1)[middle])), *middle))


def _class(neuron: Neuron, y: Array, rng: np.random.Generator) -> Array:
    (c,) = neuron.numbers
    _within(neuron, (c,), y.shape[:1])
    p = np.zeros_like(y)
    p[c] = y[c] > 0
    return p if p.any() else _channel(neuron, y, rng)


def _index(neuron: Neuron, y: Array, rng: np.random.Generator) -> Array:
    if len(neuron.numbers) != y.ndim:
        why = f"{len(neuron.numbers)} given, and a neuron of {_shape(y.shape)} has {y.ndim} coordinates"
        raise RevgraphError(f"cannot project on '{neuron}'", why, "the channel first, then its position")
    _within(neuron, neuron.numbers, y.shape)
    return _one_hot(y, neuron.numbers)


def _random(neuron: Neuron, y: Array, rng: np.random.Generator) -> Array:
    if y.size == 1:
        raise RevgraphError("cannot project on 'random'", "y has a single neuron", "max")
    drawn, largest = int(rng.integers(y.size - 1)), int(np.argmax(y))
    return _one_hot(y, _at(y, drawn + (drawn >= largest)))


def _mixture(neuron: Neuron, y: Array, rng: np.random.Generator) -> Array:
    """|N(0, 1)| over the channels of the middle position: Fig. 7."""
    p = np.zeros_like(y)
    np.moveaxis(p, 0, -1)[_middle(y)] = np.abs(rng.standard_normal(y.shape[0]))
    return p


class Kind(NamedTuple):
    """How a kind of SPEC is written, how many numbers it takes, and the p of one image."""

    usage: str
    numbers: range
    row: Row


KINDS: Mapping[str, Kind] = {
    "max": Kind("max", range(1), _max),
    "channel": Kind("channel:c", range(1, 2), _channel),
    "centre": Kind("centre", range(1), _centre),
    "class": Kind("class:c", range(1, 2), _class),
    "index": Kind("index:c,h,w", range(1, 5), _index),
    "random": Kind("random", range(1), _random),
    "mixture": Kind("mixture", range(1), _mixture),
}


# ----- The front door -----


def parse(spec: str) -> Neuron:
    """The neuron that SPEC names. A file.npy is not opened yet.

    Raises:
        RevgraphError: SPEC is none of the known kinds, or its numbers are not numbers.
    """
    if spec.lower().endswith(".npy"):
        return Neuron("file", file=spec)
    name, colon, rest = spec.partition(":")
    kind = KINDS.get(name)
    if kind is None:
        known = ", ".join(kind.usage for kind in KINDS.values())
        raise RevgraphError(f"unknown neuron '{spec}'", "no such kind", f"known: {known}, file.npy")
    numbers = [number.strip() for number in rest.split(",")] if colon else []
    if len(numbers) not in kind.numbers or not all(map(_whole, numbers)):
        raise RevgraphError(f"bad neuron '{spec}'", f"it is written {kind.usage}", "whole numbers from 0")
    return Neuron(name, tuple(map(int, numbers)))


def project(neuron: Neuron, y: Array, rng: np.random.Generator) -> Array:
    """The projection p for y (N, C, *spatial): same shape and dtype, each row from its own image alone.

    Asked again with the same rng, `random` and `mixture` give another p.

    Raises:
        NotFiniteError: y or the file holds NaN or infinities.
        RevgraphError: y has no such neuron, or the file does not fit it.
    """
    what = f"cannot project on '{neuron}'"
    if y.ndim < 2 or y.size == 0:
        raise RevgraphError(what, f"y is {_shape(y.shape)}", "a layer of shape (N, C, ...)")
    finite.check(what, "y", y, "another picture, or --precision fp32")
    if neuron.kind == "file":
        return _from_file(neuron.file, y)
    row = KINDS[neuron.kind].row
    return np.stack([row(neuron, y_row, rng) for y_row in y])


def describe(p_row: Array, y_row: Array) -> Peak:
    """What one image's p (C, *spatial) picks out of its y: a neuron, one channel's positions, or neither."""
    touched = np.argwhere(p_row)
    channels = {int(c) for c in touched[:, 0]}
    if len(touched) == 1:
        channel, *position = (int(i) for i in touched[0])
        return Peak(channel, tuple(position) or None, float(y_row[(channel, *position)]))
    if len(channels) == 1 and np.all(p_row[p_row != 0] == 1):
        (channel,) = channels
        return Peak(channel, None, float(y_row[channel].max()))
    return Peak(None, None, None)


# ----- Helpers -----


def _one_hot(y: Array, at: Position) -> Array:
    p = np.zeros_like(y)
    p[at] = 1
    return p


def _largest(y: Array) -> Position:
    """The first of equal maxima, row-major."""
    return _at(y, int(np.argmax(y)))


def _at(y: Array, flat: int) -> Position:
    return tuple(int(i) for i in np.unravel_index(flat, y.shape))


def _middle(y: Array) -> Position:
    """(n - 1) // 2 on each spatial axis: the authors' max(round(n * 0.5), 1), counted from 0."""
    return tuple((n - 1) // 2 for n in y.shape[1:])


def _whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _within(neuron: Neuron, at: Position, shape: Position) -> None:
    for axis, (i, n) in enumerate(zip(at, shape, strict=True)):
        if i >= n:
            name = f"position {i} on spatial axis {axis}" if axis else f"channel {i}"
            raise RevgraphError(f"cannot project on '{neuron}'", f"y has no {name}", f"0 to {n - 1}")


def _shape(shape: Position) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _from_file(file: str, y: Array) -> Array:
    """p as it stands in a .npy file: y's shape, or one row for all images."""
    what = f"cannot project on '{file}'"
    remedy = f"a .npy file of {_shape(y.shape)} or {_shape(y.shape[1:])} numbers"
    try:  # mapped: a header that claims terabytes takes no memory, and pickles are refused
        check_ordinary(Path(file))
        array = np.lib.format.open_memmap(file, mode="r")
    except OSError as error:
        raise RevgraphError(what, error.strerror or str(error), remedy) from error
    except Exception as error:  # a header is foreign text; NumPy's reader raises many things on it
        raise RevgraphError(what, f"not a .npy file of numbers: {error}", remedy) from error
    if array.dtype.kind not in "fiub" or array.shape not in (y.shape, y.shape[1:]):
        raise RevgraphError(what, f"it holds {_shape(array.shape)} values of type {array.dtype}", remedy)
    with np.errstate(over="ignore"):
        p = np.array(np.broadcast_to(array, y.shape), y.dtype)
    finite.check(what, f"as {y.dtype} it", p, remedy)
    return p
