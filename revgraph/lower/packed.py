"""The bottleneck in the fewest whole bits: one per unit of a mask, log2 of its elements per pooling window.

Beside any target: what that writes as bool masks and int64 positions in the plane crosses as uint8
(N, bytes), image by image, and in the reversed graph is again what the target's own lowering reads.
Of VGG-16's 25.8 MB per image it leaves 2.1, for 8 to 10 % more time forward and 3 % back (on a CPU).
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Iterable, Sequence

import numpy as np

from revgraph import op
from revgraph.graph import Builder, Shape, Tensor, gs, static
from revgraph.lower import bits
from revgraph.lower.bits import Integer, Whole, operand
from revgraph.lower.portable import same_begin
from revgraph.lower.target import Encoding, Target
from revgraph.window import Window

MOST_BITS = 11
"""Of a position in its window: up to 2^11 float32 sums are exact even where MatMul rounds to TF32."""


def packed(target: Target, rev: gs.Graph) -> Target:
    """The same target with a packed bottleneck.

    Values, slopes and sizes stay as they are. So do masks whose shape the reversed graph cannot tell,
    switches in windows of more than 2048 elements, and what the target does not write as bool or int64.

    Args:
        target: Where to run.
        rev: The reversed graph in the middle form, which reads the taps.
    """
    mask = _masks(Encoding(target.taps["Mask"], target.layers["Gate"]), rev)
    switches = _switches(Encoding(target.taps["Switches"], target.layers["Unpool"]))
    return dataclasses.replace(
        target,
        taps={**target.taps, "Mask": mask.encode, "Switches": switches.encode},
        layers={**target.layers, "Gate": mask.decode, "Unpool": switches.decode},
    )


def nbytes(tap: gs.Node) -> int | None:
    """Bytes per image of a tap of the middle form; None where only the run knows its shape."""
    r = tap.outputs[0]
    if not static(r.shape[1:]):
        return None
    units: int = math.prod(r.shape[1:])
    if tap.op == "Mask":
        return -(-units // 8)
    if tap.op == "Switches" and (width := _width(Window.of(tap.attrs))) <= MOST_BITS:
        return -(-units * width // 8)
    return units * int(r.dtype.itemsize)


# ---------------------------------------------------------------- masks


def _masks(plain: Encoding, rev: gs.Graph) -> Encoding:
    """One bit per unit. Eq. (7)."""
    readers = {tensor.name: list(tensor.outputs) for tensor in rev.inputs}
    shapes: dict[str, Shape] = {}  # of what was packed

    def encode(fwd: Builder, tap: gs.Node) -> Tensor:
        mask, name = plain.encode(fwd, tap), tap.outputs[0].name
        if mask.dtype != bool or not all(_tells(gate, mask.shape) for gate in readers[name]):
            return mask
        shapes[name] = mask.shape
        return bits.pack(fwd, mask, 1)

    def decode(rev: Builder, gate: gs.Node) -> Tensor:
        y_hat, tap = gate.inputs
        if shape := shapes.get(tap.name):
            table = gs.Constant("constant/bits/bool", bits.digits(1).astype(bool))
            gate.inputs[1] = bits.unpack(rev, tap, table, bits.sizes(rev, shape, y_hat, 1))
        return plain.decode(rev, gate)

    return Encoding(encode, decode)


def _tells(gate: gs.Node, shape: Shape) -> bool:
    """Whether a mask's reader knows its shape: as a constant, or as that of y_hat."""
    dims = list(shape[1:])
    return gate.op == "Gate" and (static(dims) or (None not in dims and dims == gate.inputs[0].shape[1:]))


# ---------------------------------------------------------------- switches


def _switches(plain: Encoding) -> Encoding:
    """Row-major positions within windows, ceil(log2 elements) bits each. Eq. (8).

    A window without a maximum, being all NaN or minus infinity, has none: it gets one that is its own.
    """
    shapes: dict[str, Shape] = {}  # of what was packed

    def encode(fwd: Builder, tap: gs.Node) -> Tensor:
        positions, window = plain.encode(fwd, tap), Window.of(tap.attrs)
        width = _width(window)
        if positions.dtype != np.int64 or width > MOST_BITS:
            return positions
        shapes[tap.outputs[0].name] = positions.shape
        inner = _inner(fwd, positions, tap.inputs[0], window)
        if 8 % width == 0:
            return bits.pack(fwd, fwd.cast(inner, np.float32), width)
        each = np.arange(2**width)[:, None] >> np.arange(width) & 1
        shape = [*inner.shape, width]
        return bits.pack(fwd, fwd.emit("Gather", each.astype(bool), inner, dtype=bool, shape=shape), 1)

    def decode(rev: Builder, unpool: gs.Node) -> Tensor:
        if shape := shapes.get(unpool.inputs[1].name):
            unpool.inputs[1] = _positions(rev, unpool, shape)
        return plain.decode(rev, unpool)

    return Encoding(encode, decode)


def _width(window: Window) -> int:
    """The fewest whole bits that tell a window's elements apart, at least one."""
    return max((math.prod(window.kernel) - 1).bit_length(), 1)


def _inner(fwd: Builder, positions: Tensor, x: Tensor, window: Window) -> Tensor:
    """Positions within the windows: int64, shaped like y, from those in the plane.

    Along axis a an element lies at v_a = c_a + t_a d_a: c is the window's corner, d are the dilations. Its
    row-major position in the window, the sum of t_a k_a where a step along a is k_a elements of the kernel,
    is the sum of (v_a - c_a) w_a / D, with D the product of d and w_a = k_a D / d_a.
    Of the position in the plane, whose size is n and where a step along a is m_a elements, the quotients
    q_a by m_a give v_a = q_a - q_(a-1) n_a. Gathered by q_a, which takes the fewest nodes, each has the
    factor w_a - n_(a+1) w_(a+1).
    """
    size, whole = bits.sizes(fwd, x.shape, x, 2), Whole(fwd, positions)
    n, common = bits.split(fwd, size), math.prod(window.dilations)
    weights = [k * (common // d) for k, d in zip(_steps(window.kernel), window.dilations, strict=True)]
    terms = [
        whole // m * (w - next_n * next_w)
        for m, w, next_n, next_w in zip(_steps(n), weights, [*n[1:], 0], [*weights[1:], 0], strict=True)
    ]
    corners = _corners(fwd, window, size, bits.sizes(fwd, positions.shape, positions, 2), weights)
    inner = (_sum(terms) - corners) // common
    most = np.array(math.prod(window.kernel) - 1)
    return fwd.emit("Clip", operand(inner), np.array(0), most, dtype=np.int64, shape=positions.shape)


def _positions(rev: Builder, unpool: gs.Node, shape: Shape) -> Tensor:
    """Back to positions in the plane: that of the window's corner, and how far from it the element is."""
    (y_hat, tap, row), window = unpool.inputs, Window.of(unpool.attrs)
    size = row.values[0] if isinstance(row, gs.Constant) else op.row(rev, row)
    steps, into = _steps(n := bits.split(rev, size)), bits.sizes(rev, shape, y_hat, 1)
    if 8 % (width := _width(window)) == 0:
        offset = bits.unpack(rev, tap, operand(_offsets(window, steps, bits.digits(width))), into)
    else:
        offsets = operand(_offsets(window, steps, np.arange(2**width)))
        inner = _numbers(rev, tap, width, into)
        offset = rev.emit("Gather", offsets, inner, dtype=np.int64, shape=inner.shape)
    corners = _corners(rev, window, size, bits.sizes(rev, shape, y_hat, 2), steps)
    found = Whole(rev, offset) + corners
    # Windows that overhang the plane may have chosen nothing within it, having no maximum.
    last = operand(steps[0] * n[0] - 1)
    return rev.emit("Clip", operand(found), np.array(0), last, dtype=np.int64, shape=shape)


def _numbers(rev: Builder, tap: Tensor, width: int, into: Tensor | np.ndarray) -> Tensor:
    """Numbers whose bits straddle bytes: int32 (N, *into)."""
    ones = gs.Constant("constant/bits/float32", bits.digits(1).astype(np.float32))
    each = bits.unpack(rev, tap, ones, bits.joined(rev, into, np.array([width])))
    rows, *dims, _ = each.shape
    parts = rev.emit("Reshape", each, np.array([0, -1, width]), dtype=np.float32, shape=[rows, None, width])
    inner = rev.cast(bits.numbers(rev, parts, 1), np.int32)
    target = bits.joined(rev, np.array([0]), into)
    return rev.emit("Reshape", inner, target, dtype=np.int32, shape=[rows, *dims])


def _offsets(window: Window, steps: Sequence[Integer], inner: np.ndarray) -> Integer:
    """How far in the plane elements are from their window's corner; what numbers none stands for the last."""
    elements = np.unravel_index(np.minimum(inner, math.prod(window.kernel) - 1), window.kernel)
    axes = zip(elements, window.dilations, steps, strict=True)
    return _sum(step * (t * d) for t, d, step in axes)


def _corners(
    builder: Builder,
    window: Window,
    size: Tensor | np.ndarray,
    outputs: Tensor | np.ndarray,
    weights: Sequence[Integer],
) -> Integer:
    """Where the windows begin, weighted and summed over the axes: int64, shaped like `outputs`."""
    begin = same_begin(builder, size, window) if window.same else np.array(window.begin)
    axes = zip(bits.split(builder, outputs), window.strides, bits.split(builder, begin), weights, strict=True)
    terms = [
        (_count(builder, windows, len(weights) - 1 - axis) * stride - first) * weight
        for axis, (windows, stride, first, weight) in enumerate(axes)
    ]
    return _sum(terms)


def _count(builder: Builder, n: Integer, trailing: int) -> Integer:
    """0, 1, ..., n - 1 along one axis, with as many of one element behind it."""
    shape = np.array([-1, *[1] * trailing])
    if not isinstance(n, Whole):
        return np.arange(int(n)).reshape(shape)
    order = builder.emit("Range", np.array(0), n.tensor, np.array(1), dtype=np.int64, shape=[None])
    return Whole(
        builder, builder.emit("Reshape", order, shape, dtype=np.int64, shape=[None, *[1] * trailing])
    )


def _sum(terms: Iterable[Integer]) -> Integer:
    total: Integer = functools.reduce(operator.add, terms)
    return total


def _steps(size: Sequence[Integer]) -> list[Integer]:
    """Elements in row-major order to a step along each axis."""
    steps: list[Integer] = [1]
    for n in reversed(size[1:]):
        steps.insert(0, n * steps[0])
    return steps
