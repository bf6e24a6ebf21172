"""Reversing Resize: linear in x, so the transposed interpolation. Eq. (6)."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from revgraph.graph import Builder, Tensor, gs, static
from revgraph.rules import along
from revgraph.rules.along import Number
from revgraph.rules.rule import Bottleneck, Rule, XHats, cannot_reverse, constant
from revgraph.rules.sizes import size_of_x


def _resize(rev: Builder, resize: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """The interpolation's transposed matrix, axis by axis."""
    (size,) = r
    _check(resize)
    x = resize.inputs[0]
    if (factors := _repeats(resize)) is not None:
        return (_sum_blocks(rev, y_hat, x, factors),)
    x_hat = y_hat
    # onnxruntime copies what keeps its size along all axes, whatever the scales are.
    same = static(x.shape[2:]) and x.shape[2:] == resize.outputs[0].shape[2:]
    for i in range(2, len(x.shape)):
        n, m = x.shape[i], resize.outputs[0].shape[i]
        if n == m and isinstance(n, int) and (same or _scale(resize, i) in (None, 1)):
            continue
        matrix: Tensor | np.ndarray
        if isinstance(n, int) and isinstance(m, int):
            along.check_size(resize, m, n)
            matrix = _matrix(resize, i, n, m).astype(y_hat.dtype)
        else:
            matrix = _free_matrix(rev, resize, i, x_hat, size)
        x_hat = along.transposed(rev, x_hat, i, matrix, n)
    return (x_hat,)


def _check(resize: gs.Node) -> None:
    x, y, attributes = resize.inputs[0], resize.outputs[0], resize.attrs
    remedy = "use nearest or linear, or choose --at before this node"
    if x.shape[1] != y.shape[1]:
        raise cannot_reverse(resize, "it resizes other axes than the spatial ones", remedy)
    if attributes.get("mode", "nearest") not in ("nearest", "linear") or attributes.get("antialias", 0):
        raise cannot_reverse(resize, f"its mode is {attributes.get('mode')}, or antialiased", remedy)
    if attributes.get("coordinate_transformation_mode", "half_pixel") not in COORDINATES:
        raise cannot_reverse(resize, f"it uses {attributes['coordinate_transformation_mode']}", remedy)
    if attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch" and _scales(resize) is None:
        remedy = "give the size that it comes to, or choose --at before this node"
        raise cannot_reverse(resize, "it is told to keep the aspect ratio", remedy)


def _scales(resize: gs.Node) -> list[float] | None:
    """The given scales of the spatial axes, if they are known at compile time."""
    if (
        len(resize.inputs) < 3
        or not isinstance(resize.inputs[2], gs.Constant)
        or not resize.inputs[2].values.size
    ):
        return None
    rank, scales = len(resize.inputs[0].shape), constant(resize, 2, "scales").tolist()
    axes = (axis % rank for axis in resize.attrs.get("axes", range(rank)))
    given = dict(zip(axes, scales, strict=False))
    return [given.get(i, 1.0) for i in range(2, rank)]


def _scale(resize: gs.Node, axis: int) -> float | None:
    """The given scale of one axis."""
    scales = _scales(resize)
    return None if scales is None else scales[axis - 2]


def _repeats(resize: gs.Node) -> list[int] | None:
    """Whole factors per axis, where resizing repeats each element so many times."""
    scales, channels = _scales(resize), resize.inputs[0].shape[1]
    if (
        resize.attrs.get("mode", "nearest") != "nearest"
        or not isinstance(channels, int)
        or scales is None
        or not all(s >= 1 and float(s).is_integer() for s in scales)
    ):
        return None
    factors = [int(s) for s in scales]
    along.check_size(resize, channels, math.prod(factors))
    repeated = [np.kron(np.eye(5), np.ones((k, 1))) for k in factors]
    axes = range(2, 2 + len(factors))
    same = (
        np.array_equal(_matrix(resize, a, 5, 5 * k), m)
        for a, k, m in zip(axes, factors, repeated, strict=True)
    )
    return factors if all(same) else None


def _sum_blocks(rev: Builder, y_hat: Tensor, x: Tensor, factors: list[int]) -> Tensor:
    """x_hat = the sum over each element's repetitions: a convolution with ones."""
    ones = np.ones((x.shape[1], 1, *factors), y_hat.dtype)
    shape = [y_hat.shape[0], *x.shape[1:]]
    return rev.emit("Conv", y_hat, ones, dtype=y_hat.dtype, shape=shape, strides=factors, group=x.shape[1])


# ---------------------------------------------------------------- the matrix, from ONNX's text

# Position in x of the output i, for n inputs and m outputs at scale s.
COORDINATES: Mapping[str, Callable[[Any, Any, Any, Any], Any]] = {
    "align_corners": lambda i, n, m, s: i * (n - 1) / np.maximum(m - 1, 1),
    "asymmetric": lambda i, n, m, s: i / s,
    "half_pixel": lambda i, n, m, s: (i + 0.5) / s - 0.5,
    "half_pixel_symmetric": lambda i, n, m, s: (1 - m / (s * n)) * n / 2 + (i + 0.5) / s - 0.5,
    "pytorch_half_pixel": lambda i, n, m, s: ((i + 0.5) / s - 0.5) * np.minimum(m - 1, 1),
}

NEAREST: Mapping[str, Callable[[Any], Any]] = {
    "ceil": np.ceil,
    "floor": np.floor,
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
}


def _positions(resize: gs.Node, axis: int, i: Any, n: Any, m: Any) -> Any:
    """Where in x the outputs i lie, from 0 to n - 1; whole for nearest."""
    given = _scale(resize, axis)
    # onnxruntime computes positions in float32, and so decides whether one lies halfway.
    scale = m / n if given is None else given
    mode = resize.attrs.get("coordinate_transformation_mode", "half_pixel")
    at = COORDINATES[mode](i, n, m, scale)
    if resize.attrs.get("mode", "nearest") == "nearest":
        at = NEAREST[resize.attrs.get("nearest_mode", "round_prefer_floor")](at)
    return np.minimum(np.maximum(at, 0), n - 1)


def _matrix(resize: gs.Node, axis: int, n: int, m: int) -> np.ndarray:
    """float64 (m, n): y = A x along the axis."""
    rows = np.arange(m, dtype=np.float32)[:, None]
    at = _positions(resize, axis, rows, np.float32(n), np.float32(m)).astype(np.float64)
    return np.asarray(_hat(at, np.arange(n)))


def _free_matrix(rev: Builder, resize: gs.Node, i: int, y_hat: Tensor, sizes: Tensor) -> Tensor:
    """The same in y_hat's dtype, made at run time out of the sizes of x and of y_hat."""
    n, m = along.size(rev, sizes, i), along.length(rev, y_hat, i)
    column = rev.emit("Unsqueeze", along.count(rev, m), np.array([1]), dtype=np.int64, shape=[None, 1])
    rows, columns = Number.of(rev, column), Number.of(rev, along.count(rev, n))
    matrix = _hat(_positions(resize, i, rows, Number.of(rev, n), Number.of(rev, m)), columns).tensor
    return rev.cast(matrix, y_hat.dtype)


def _hat(at: Any, columns: Any) -> Any:
    """The share of each element at a position: 1 there, falling to 0 one element away."""
    return np.maximum(1 - np.absolute(at - columns), 0)


resize = Rule("transposed", _resize, size_of_x)
