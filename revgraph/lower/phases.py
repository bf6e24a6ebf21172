"""Max pooling's switches as positions in the window, by comparison: no Indices, and no scattering.

Backends number Indices differently where maxima are equal, or know none at all. Here element k of every
window is a slice of x, its phase, and the first phase that equals y is the switch: Eq. (8). Reversed, a phase
is y_hat where the switch is k; those that fall on the same elements add up, others lie side by side: Eq. (9).
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from revgraph.errors import RevgraphError
from revgraph.graph import Builder, Shape, Tensor, gs, static
from revgraph.lower.target import Encoding
from revgraph.window import Axes, Window

MOST = 256
"""Elements of a window, as a byte tells them apart; each is a few nodes in both graphs."""

MOST_PLANES = 2**12
"""Elements from one window to the next in all directions; each is a node at least."""


def _encode(fwd: Builder, tap: gs.Node) -> Tensor:
    """The row-major position of each window's first maximum: uint8, shaped like y."""
    x, y = tap.inputs
    window = Window.of(tap.attrs)
    _check(tap, window, x.shape, y.shape)
    phases = _phases(fwd, x, y, window)
    find = _first_greatest if y.dtype == np.float16 else _first_equal
    found = find(fwd, phases, y)
    if isinstance(found, np.ndarray):  # a window of one element
        found = fwd.cast(fwd.emit("Less", y, y, dtype=bool, shape=y.shape), np.float32)
    return fwd.cast(found, np.uint8)


def _first_equal(fwd: Builder, phases: list[Tensor], y: Tensor) -> Tensor | np.ndarray:
    """The number of the first phase that equals y; of the last one, should no other."""
    found: Tensor | np.ndarray = np.array(len(phases) - 1, np.float32)
    for k in reversed(range(len(phases) - 1)):
        equal = fwd.emit("Equal", phases[k], y, dtype=bool, shape=y.shape)
        found = fwd.emit("Where", equal, np.array(k, np.float32), found, dtype=np.float32, shape=y.shape)
    return found


def _first_greatest(fwd: Builder, phases: list[Tensor], y: Tensor) -> Tensor | np.ndarray:
    """The same without y: onnxruntime's CPU rounds to float16 what a node reads, or does not."""
    greatest: Tensor = phases[0]
    found: Tensor | np.ndarray = np.array(0, np.float32)
    for k, phase in enumerate(phases[1:], 1):
        greater = fwd.emit("Greater", phase, greatest, dtype=bool, shape=y.shape)
        found = fwd.emit("Where", greater, np.array(k, np.float32), found, dtype=np.float32, shape=y.shape)
        greatest = fwd.emit("Max", phase, greatest, dtype=y.dtype, shape=y.shape)
    return found


def _check(tap: gs.Node, window: Window, size: Shape, outputs: Shape) -> None:
    what = f"cannot pool without Indices at '{tap.name.removesuffix('/switches')}'"
    if not (static(size[2:]) and static(outputs[2:])) or window.same:
        remedy = "export with fixed sizes, or compile with --target portable"
        raise RevgraphError(what, "the size of its maps is known at run time only", remedy)
    if (elements := math.prod(window.kernel)) > MOST:
        why = f"its windows have {elements} elements, and the most are {MOST}"
        raise RevgraphError(what, why, "compile with --target portable")


def _phases(fwd: Builder, x: Tensor, y: Tensor, window: Window) -> list[Tensor]:
    """Every element of the windows, in row-major order, each like y; the padding is below any number."""
    size, outputs = x.shape[2:], y.shape[2:]
    end = [max(-rest, 0) for rest in window.uncovered(outputs, size)]
    padded, axes = x, np.arange(2, len(x.shape))
    if any((*window.begin, *end)):
        pads = np.array([0, 0, *window.begin, 0, 0, *end])
        shape = [*x.shape[:2], *(n + b + e for n, b, e in zip(size, window.begin, end, strict=True))]
        lowest = -np.inf if np.issubdtype(x.dtype, np.floating) else np.iinfo(x.dtype).min
        padded = fwd.emit("Pad", x, pads, np.array(lowest, x.dtype), dtype=x.dtype, shape=shape)
    steps = np.array(window.strides)
    found = list[Tensor]()
    for element in np.ndindex(window.kernel):
        start = np.array(element) * window.dilations
        last = start + (np.array(outputs) - 1) * steps + 1
        found.append(fwd.emit("Slice", padded, start, last, axes, steps, dtype=x.dtype, shape=y.shape))
    return found


def _decode(rev: Builder, unpool: gs.Node) -> Tensor:
    y_hat, switches, _ = unpool.inputs
    window = Window.of(unpool.attrs)
    number = rev.cast(switches, np.float32)
    parts = {}
    for k, element in enumerate(np.ndindex(window.kernel)):
        chosen = rev.emit("Equal", number, np.array(k, np.float32), dtype=bool, shape=switches.shape)
        zero = np.zeros((), y_hat.dtype)
        parts[element] = rev.emit("Where", chosen, y_hat, zero, dtype=y_hat.dtype, shape=y_hat.shape)
    return place(rev, parts, window, unpool.outputs[0].shape)


PHASES = Encoding(_encode, _decode)
"""One byte per window."""


# ---------------------------------------------------------------- side by side


def place(rev: Builder, parts: Mapping[Axes, Tensor], window: Window, shape: Shape) -> Tensor:
    """x_hat with each part at its element of the windows, summed where windows meet: `shape`.

    Args:
        rev: The reversed graph.
        parts: (P, C, *windows) by the element's position in its window.
        window: The window.
        shape: Of x_hat, its spatial sizes known.

    Raises:
        RevgraphError: The windows lie very far apart.
    """
    like = next(iter(parts.values()))
    if (apart := math.prod(window.strides)) > MOST_PLANES:
        why = f"its strides span {apart} elements, and the most are {MOST_PLANES}"
        raise RevgraphError(f"cannot unpool at '{rev.scope}'", why, "compile with --target portable")
    lines = [_Line(window, axis, like.shape, shape) for axis in range(len(window.kernel))]
    cells: dict[Axes, list[Tensor]] = defaultdict(list)
    for element, part in parts.items():
        residue = tuple(line.residue(t) for line, t in zip(lines, element, strict=True))
        cells[residue].append(
            _padded(rev, part, [line.pads(t) for line, t in zip(lines, element, strict=True)])
        )
    planes = {residue: _total(rev, terms) for residue, terms in cells.items()}
    some = next(iter(planes.values()))
    for residue in itertools.product(*(range(line.stride) for line in lines)):
        if residue not in planes:
            never, zero = np.array(False), np.zeros((), like.dtype)
            planes[residue] = rev.emit("Where", never, some, zero, dtype=like.dtype, shape=some.shape)
    whole = _interleaved(rev, planes, lines)
    starts = np.array([line.before for line in lines])
    ends = starts + np.array(shape[2:])
    if not starts.any() and whole.shape[2:] == list(shape[2:]):
        return whole
    axes = np.arange(2, len(shape))
    return rev.emit("Slice", whole, starts, ends, axes, dtype=like.dtype, shape=shape)


class _Line:
    """Along one axis: element t of window u lies at u s + t d - b = s i + r, with r its residue.

    Planes hold every i from `low` on, `length` of them, so that all of them have one size.
    """

    def __init__(self, window: Window, axis: int, y_shape: Shape, x_shape: Shape) -> None:
        outputs, size = y_shape[axis + 2], x_shape[axis + 2]
        assert isinstance(outputs, int)
        assert isinstance(size, int)
        self.stride = window.strides[axis]
        self._dilation, self._begin = window.dilations[axis], window.begin[axis]
        moves = [self._move(t) for t in range(window.kernel[axis])]
        self._outputs, self._low = outputs, min(*moves, 0)
        self.length = max(outputs + max(moves), -(-size // self.stride)) - self._low
        self.before = -self._low * self.stride

    def residue(self, t: int) -> int:
        return (t * self._dilation - self._begin) % self.stride

    def _move(self, t: int) -> int:
        return (t * self._dilation - self._begin) // self.stride

    def pads(self, t: int) -> Axes:
        """What lies before and after the windows in their plane."""
        before = self._move(t) - self._low
        return before, self.length - before - self._outputs


def _padded(rev: Builder, part: Tensor, pads: Sequence[Axes]) -> Tensor:
    if not any(itertools.chain(*pads)):
        return part
    begin, end = zip(*pads, strict=True)
    shape = [*part.shape[:2], *(n + b + e for n, (b, e) in zip(part.shape[2:], pads, strict=True))]
    return rev.emit("Pad", part, np.array([0, 0, *begin, 0, 0, *end]), dtype=part.dtype, shape=shape)


def _total(rev: Builder, terms: Sequence[Tensor]) -> Tensor:
    first, *others = terms
    return rev.emit("Sum", *terms, dtype=first.dtype, shape=first.shape) if others else first


def _interleaved(rev: Builder, planes: Mapping[Axes, Tensor], lines: Sequence[_Line]) -> Tensor:
    """The planes of all residues as one map, from the last axis to the first."""
    for axis in reversed(range(len(lines))):
        stride, length = lines[axis].stride, lines[axis].length
        if stride == 1:
            planes = {residue[:axis]: plane for residue, plane in planes.items()}
            continue
        merged = dict[Axes, Tensor]()
        for head in {residue[:axis]: None for residue in planes}:
            alike = [planes[(*head, r)] for r in range(stride)]
            shape = list(alike[0].shape)
            apart = [*shape[: axis + 3], 1, *shape[axis + 3 :]]
            columns = [_reshaped(rev, plane, apart) for plane in alike]
            apart[axis + 3] = stride
            both = rev.emit("Concat", *columns, dtype=columns[0].dtype, shape=apart, axis=axis + 3)
            shape[axis + 2] = stride * length
            merged[head] = _reshaped(rev, both, shape)
        planes = merged
    (whole,) = planes.values()
    return whole


def _reshaped(rev: Builder, x: Tensor, shape: Shape) -> Tensor:
    """To (P, *rest), of which all but P is known."""
    return rev.emit("Reshape", x, np.array([0, *shape[1:]]), dtype=x.dtype, shape=shape)
