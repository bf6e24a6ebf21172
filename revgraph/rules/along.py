"""Layers that are a matrix along one axis, y = A x with A (m, n): x_hat = A^T y_hat. Eq. (6).

Sizes known at compile time give a constant matrix; others one that the reversed graph makes while it runs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from revgraph import op
from revgraph.graph import Builder, Tensor, gs
from revgraph.rules.rule import cannot_reverse

MAX_ELEMENTS = 2**28
"""Most elements of a matrix that is stored: 1 GiB of float32."""

Dim = int | str | None


def transposed(
    rev: Builder, y_hat: Tensor, axis: int, matrix: Tensor | np.ndarray, n: int | str | None
) -> Tensor:
    """x_hat = A^T y_hat along one axis, for A (m, n)."""
    rank = len(y_hat.shape)
    shape = [*y_hat.shape[:axis], n, *y_hat.shape[axis + 1 :]]
    if axis == rank - 1:
        return rev.emit("MatMul", y_hat, matrix, dtype=y_hat.dtype, shape=shape)
    if axis == rank - 2:
        return rev.emit("MatMul", _turned(rev, matrix), y_hat, dtype=y_hat.dtype, shape=shape)
    perm = [*(i for i in range(rank) if i != axis), axis]
    last = rev.emit("Transpose", y_hat, dtype=y_hat.dtype, shape=[y_hat.shape[i] for i in perm], perm=perm)
    product = rev.emit("MatMul", last, matrix, dtype=y_hat.dtype, shape=[*last.shape[:-1], n])
    return rev.emit("Transpose", product, dtype=y_hat.dtype, shape=shape, perm=np.argsort(perm).tolist())


def _turned(rev: Builder, matrix: Tensor | np.ndarray) -> Tensor | np.ndarray:
    if isinstance(matrix, np.ndarray):
        return np.ascontiguousarray(matrix.T)
    return rev.emit("Transpose", matrix, dtype=matrix.dtype, shape=[None, None], perm=[1, 0])


def one_hot(node: gs.Node, at: Sequence[int] | np.ndarray, n: int, dtype: np.dtype[Any]) -> np.ndarray:
    """A (m, n) where output i reads element at[i], from -n to n - 1: 1 there, 0 elsewhere.

    Raises:
        RevgraphError: It is absurdly large, or an element is none of n.
    """
    check_size(node, len(at), n)
    matrix, places = np.zeros((len(at), n), dtype), np.asarray(at, np.int64)
    if ((places < -n) | (places >= n)).any():
        raise cannot_reverse(node, f"it reads beyond the {n} elements of its input", "check the model")
    matrix[np.arange(len(at)), places] = 1
    return matrix


def check_size(node: gs.Node, m: int, n: int) -> None:
    """Refuse a layer whose matrix (m, n) is absurdly large."""
    if m * n > MAX_ELEMENTS:
        raise cannot_reverse(node, f"its matrix, {m} x {n}, is absurdly large", "check the model")


def selection(rev: Builder, at: Tensor, n: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """A (m, n) where output i reads element at[i]: 1 there, 0 elsewhere.

    Args:
        rev: The reversed graph.
        at: int64 (m,), each from 0 to n - 1.
        n: int64, one number.
        dtype: Of the matrix.
    """
    rows = rev.emit("Unsqueeze", at, np.array([1]), dtype=np.int64, shape=[None, 1])
    equal = rev.emit("Equal", rows, count(rev, n), dtype=bool, shape=[None, None])
    return rev.cast(equal, dtype)


def count(rev: Builder, n: Tensor) -> Tensor:
    """0, 1, ..., n - 1: int64 (n,)."""
    end = rev.emit("Squeeze", n, dtype=np.int64, shape=[])
    return rev.emit("Range", np.array(0), end, np.array(1), dtype=np.int64, shape=[None])


def size(rev: Builder, sizes: Tensor, axis: int) -> Tensor:
    """The size of x along a spatial axis: int64 (1,), of what `op.size` gave."""
    return rev.emit("Gather", op.row(rev, sizes), np.array([axis - 2]), dtype=np.int64, shape=[1])


def length(rev: Builder, y_hat: Tensor, axis: int) -> Tensor:
    """The size of y_hat along any axis: int64 (1,)."""
    return rev.emit("Shape", y_hat, dtype=np.int64, shape=[1], start=axis, end=axis + 1)


def pad(rev: Builder, y_hat: Tensor, axis: int, begin: Tensor | np.ndarray, end: Tensor, n: Dim) -> Tensor:
    """Zeros before and after y_hat along one axis, n in all; `begin` and `end` are int64 (1,)."""
    shape = [*y_hat.shape[:axis], n, *y_hat.shape[axis + 1 :]]
    rank = len(y_hat.shape)
    zeros = np.zeros(rank, np.int64)
    parts = [zeros[:axis], begin, zeros[1:], end, zeros[axis + 1 :]]
    kept = [part for part in parts if not isinstance(part, np.ndarray) or part.size]
    pads = rev.emit("Concat", *kept, dtype=np.int64, shape=[2 * rank], axis=0)
    return rev.emit("Pad", y_hat, pads, dtype=y_hat.dtype, shape=shape)


class Number(np.lib.mixins.NDArrayOperatorsMixin):
    """A float32 of the run, which NumPy's arithmetic works on by writing nodes.

    Attributes:
        tensor: The tensor, whose shape broadcasts with that of others.
    """

    def __init__(self, rev: Builder, tensor: Tensor) -> None:
        self._rev, self.tensor = rev, tensor

    @classmethod
    def of(cls, rev: Builder, whole: Tensor) -> "Number":
        """int64 as a Number."""
        return cls(rev, rev.cast(whole, np.float32))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> "Number":
        operands = [x.tensor if isinstance(x, Number) else np.array(x, np.float32) for x in inputs]
        rank = max(len(operand.shape) for operand in operands)
        y = self._rev.emit(_OPERATORS[ufunc], *operands, dtype=np.float32, shape=[None] * rank)
        return Number(self._rev, y)


_OPERATORS: Mapping[np.ufunc, str] = {
    np.absolute: "Abs",
    np.add: "Add",
    np.ceil: "Ceil",
    np.divide: "Div",
    np.floor: "Floor",
    np.maximum: "Max",
    np.minimum: "Min",
    np.multiply: "Mul",
    np.subtract: "Sub",
}
