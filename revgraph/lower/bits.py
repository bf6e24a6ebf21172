"""Numbers of few bits in bytes, by operators that every backend has, and whole numbers of the run.

`pack` lays out the units of each image in row-major order, from byte 0 and its lowest bits on, as
`numpy.packbits(mask.reshape(N, -1), axis=1, bitorder="little")` does; zeros fill the last byte.

Float32 is exact here: products of few bits with powers of two, summed. Of ways to write it, measured for
(1, 64, 224, 224) with onnxruntime on one CPU thread: to pack, Transpose and MatMul take 5.7 ms, Mul and
ReduceSum 12.7 (Greater alone: 1.2); to unpack and gate, Gather takes 6.7, Floor and MatMul 9.2, BitwiseAnd,
which wants opset 18 and no CUDA, 6.2 (bool masks: 4.8).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from revgraph.graph import Builder, Shape, Tensor, static


class Whole(np.lib.mixins.NDArrayOperatorsMixin):
    """An int64 tensor of the run, which NumPy's arithmetic works on by writing nodes.

    Attributes:
        tensor: The tensor.
    """

    def __init__(self, builder: Builder, tensor: Tensor) -> None:
        self._builder, self.tensor = builder, tensor

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> "Whole":
        operator, neutral = _OPERATORS[ufunc]
        a, b = inputs
        if isinstance(a, Whole) and isinstance(b, int) and b == neutral:
            return a
        operands = [operand(x) for x in inputs]
        rank = max(len(each.shape) for each in operands)
        y = self._builder.emit(operator, *operands, dtype=np.int64, shape=[None] * rank)
        return Whole(self._builder, y)


_OPERATORS: Mapping[np.ufunc, tuple[str, int]] = {
    np.add: ("Add", 0),
    np.floor_divide: ("Div", 1),  # which rounds towards zero
    np.multiply: ("Mul", 1),
    np.subtract: ("Sub", 0),
}

Integer = Whole | np.ndarray | int
"""int64, of the run or known to the compiler, whose arithmetic then leaves no nodes."""


def operand(number: Integer) -> Tensor | np.ndarray:
    """The number as the input of a node."""
    return number.tensor if isinstance(number, Whole) else np.asarray(number, np.int64)


def sizes(builder: Builder, shape: Shape, like: Tensor, start: int) -> Tensor | np.ndarray:
    """A shape from an axis on: int64 (rank - start,), read off `like` where only the run knows it."""
    if static(shape[start:]):
        return np.array(shape[start:], np.int64)
    return builder.emit("Shape", like, dtype=np.int64, shape=[len(shape) - start], start=start)


def split(builder: Builder, row: Tensor | np.ndarray) -> list[Integer]:
    """The numbers of a vector, one by one."""
    if isinstance(row, np.ndarray):
        return list(row.tolist())
    each = (builder.emit("Gather", row, np.array(i), dtype=np.int64, shape=[]) for i in range(row.shape[0]))
    return [Whole(builder, number) for number in each]


def digits(bits: int) -> np.ndarray:
    """Those that each byte holds: int64 (256, 8 / bits), the lowest first."""
    held: np.ndarray = np.arange(256)[:, None] >> np.arange(0, 8, bits) & 2**bits - 1
    return held


def pack(fwd: Builder, units: Tensor, bits: int) -> Tensor:
    """Bytes of several units each: uint8 (N, ceil(units * bits / 8)).

    Args:
        fwd: The graph.
        units: (N, ...), bool or float32, whole numbers below 2^bits.
        bits: 1, 2, 4 or 8.
    """
    per, rows = 8 // bits, units.shape[0]
    kind: dict[str, Any] = {"dtype": units.dtype}
    count = math.prod(units.shape[1:]) if static(units.shape[1:]) else None
    flat = fwd.emit("Reshape", units, np.array([0, -1]), shape=[rows, count], **kind)
    if count is None or count % per:
        pads = _padding(fwd, flat, per)
        count = None if count is None else -(-count // per) * per
        flat = fwd.emit("Pad", flat, pads, shape=[rows, count], **kind)
    shape = [rows, None if count is None else count // per, per]
    parts = fwd.emit("Reshape", flat, np.array([0, -1, per]), shape=shape, **kind)
    return fwd.cast(numbers(fwd, parts, bits), np.uint8)


def _padding(fwd: Builder, flat: Tensor, per: int) -> Tensor | np.ndarray:
    """Zeros after each row until `per` divides its length."""
    n: Integer = flat.shape[1] or Whole(fwd, fwd.emit("Shape", flat, dtype=np.int64, shape=[1], start=1))
    rest = operand((n + per - 1) // per * per - n)
    if isinstance(rest, np.ndarray):
        return np.array([0, 0, 0, rest])
    return fwd.emit("Concat", np.array([0, 0, 0]), rest, dtype=np.int64, shape=[4], axis=0)


def numbers(builder: Builder, parts: Tensor, bits: int) -> Tensor:
    """The numbers (N, M), float32, whose digits to the base 2^bits are (N, M, digits), the lowest first.

    The sums run along whole rows, which a transposition of single bytes is cheap beside.
    """
    n, m, count = parts.shape
    rows = builder.emit("Transpose", parts, dtype=parts.dtype, shape=[n, count, m], perm=[0, 2, 1])
    rows = rows if rows.dtype == np.float32 else builder.cast(rows, np.float32)
    powers = (2.0 ** (bits * np.arange(count)))[None].astype(np.float32)
    sums = builder.emit("MatMul", powers, rows, dtype=np.float32, shape=[n, 1, m])
    return builder.emit("Reshape", sums, np.array([0, -1]), dtype=np.float32, shape=[n, m])


def unpack(rev: Builder, tap: Tensor, table: Tensor | np.ndarray, into: Tensor | np.ndarray) -> Tensor:
    """Back to units, or to what a table says of each: (N, *into).

    Args:
        rev: The graph.
        tap: What `pack` gave.
        table: (256, units per byte), in the dtype that is wanted.
        into: The units of one image: int64 (rank - 1,).
    """
    rows, per = tap.shape[0], table.shape[1]
    kind: dict[str, Any] = {"dtype": table.dtype}
    found = rev.emit("Gather", table, rev.cast(tap, np.int32), shape=[*tap.shape, per], **kind)
    flat = rev.emit("Reshape", found, np.array([0, -1]), shape=[rows, None], **kind)
    if isinstance(into, np.ndarray):
        count: Tensor | np.ndarray = into.prod(keepdims=True)
        dims = into.tolist()
    else:
        count = rev.emit("ReduceProd", into, dtype=np.int64, shape=[1], keepdims=1)
        dims = [None] * into.shape[0]
    if not isinstance(count, np.ndarray) or count[0] % per:
        flat = rev.emit("Slice", flat, np.array([0]), count, np.array([1]), shape=[rows, None], **kind)
    return rev.emit("Reshape", flat, joined(rev, np.array([0]), into), shape=[rows, *dims], **kind)


def joined(builder: Builder, *parts: Tensor | np.ndarray) -> Tensor | np.ndarray:
    """Vectors of int64 in one."""
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    length = sum(part.shape[0] for part in parts)
    return builder.emit("Concat", *parts, dtype=np.int64, shape=[length], axis=0)
