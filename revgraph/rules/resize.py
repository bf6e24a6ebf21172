"""Reversing Resize: linear in x, so the transposed interpolation. Eq. (6)."""

from collections.abc import Callable, Mapping

import numpy as np

from revgraph import op
from revgraph.graph import Builder, Tensor, gs, static
from revgraph.rules.rule import Bottleneck, Rule, XHats, cannot_reverse, constant


def _size(fwd: Builder, resize: gs.Node) -> Bottleneck:
    """r = (size of x,)."""
    return (op.size(fwd, resize.inputs[0]),)


def _resize(rev: Builder, resize: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """The interpolation's transposed matrix, axis by axis."""
    (size,) = r
    _check(resize)
    x = resize.inputs[0]
    if (factors := _repeats(resize)) is not None:
        return (_sum_blocks(rev, y_hat, x, factors),)
    if not isinstance(size, gs.Constant) or not static(resize.outputs[0].shape[2:]):
        why = "it interpolates between sizes known at run time only"
        raise cannot_reverse(resize, why, "give the model a fixed input size, or resize by whole factors")
    x_hat = y_hat
    for axis in range(2, len(x.shape)):
        n, m = x.shape[axis], resize.outputs[0].shape[axis]
        if n != m:
            x_hat = _apply(rev, x_hat, axis, _matrix(resize, axis, n, m).astype(y_hat.dtype))
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


def _scales(resize: gs.Node) -> list[float] | None:
    """The given scales of the spatial axes, if they are known at compile time."""
    if (
        len(resize.inputs) < 3
        or not isinstance(resize.inputs[2], gs.Constant)
        or not resize.inputs[2].values.size
    ):
        return None
    scales: list[float] = constant(resize, 2, "scales").tolist()
    return scales[-(len(resize.inputs[0].shape) - 2) :]


def _repeats(resize: gs.Node) -> list[int] | None:
    """Whole factors per axis, where resizing repeats each element so many times."""
    scales = _scales(resize)
    if (
        resize.attrs.get("mode", "nearest") != "nearest"
        or scales is None
        or not all(s == int(s) >= 1 for s in scales)
    ):
        return None
    factors = [int(s) for s in scales]
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


def _apply(rev: Builder, y_hat: Tensor, axis: int, matrix: np.ndarray) -> Tensor:
    """Multiply along one axis: x_hat = y_hat A for A (m, n)."""
    rank, n = len(y_hat.shape), matrix.shape[1]
    shape = [*y_hat.shape[:axis], n, *y_hat.shape[axis + 1 :]]
    if axis == rank - 1:
        return rev.emit("MatMul", y_hat, matrix, dtype=y_hat.dtype, shape=shape)
    if axis == rank - 2:
        return rev.emit("MatMul", np.ascontiguousarray(matrix.T), y_hat, dtype=y_hat.dtype, shape=shape)
    perm = [*(i for i in range(rank) if i != axis), axis]
    last = rev.emit("Transpose", y_hat, dtype=y_hat.dtype, shape=[y_hat.shape[i] for i in perm], perm=perm)
    product = rev.emit("MatMul", last, matrix, dtype=y_hat.dtype, shape=[*last.shape[:-1], n])
    return rev.emit("Transpose", product, dtype=y_hat.dtype, shape=shape, perm=np.argsort(perm).tolist())


# ---------------------------------------------------------------- the matrix, from ONNX's text

# Position in x of the output i, for n inputs and m outputs at scale s.
COORDINATES: Mapping[str, Callable[[np.ndarray, int, int, float], np.ndarray]] = {
    "align_corners": lambda i, n, m, s: i * (n - 1) / (m - 1) if m > 1 else i * 0.0,
    "asymmetric": lambda i, n, m, s: i / s,
    "half_pixel": lambda i, n, m, s: (i + 0.5) / s - 0.5,
    "half_pixel_symmetric": lambda i, n, m, s: n / 2 * (1 - m / (s * n)) + (i + 0.5) / s - 0.5,
    "pytorch_half_pixel": lambda i, n, m, s: (i + 0.5) / s - 0.5 if m > 1 else i * 0.0,
}

NEAREST: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "ceil": np.ceil,
    "floor": np.floor,
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
}


def _matrix(resize: gs.Node, axis: int, n: int, m: int) -> np.ndarray:
    """float64 (m, n): y = A x along the axis."""
    scales = _scales(resize)
    scale = m / n if scales is None else scales[axis - 2]
    # onnxruntime computes positions in float32, and so decides whether one lies halfway.
    mode = resize.attrs.get("coordinate_transformation_mode", "half_pixel")
    at = COORDINATES[mode](np.arange(m, dtype=np.float32), n, m, float(np.float32(scale)))
    if resize.attrs.get("mode", "nearest") == "nearest":
        rounding = NEAREST[resize.attrs.get("nearest_mode", "round_prefer_floor")]
        return np.asarray(np.eye(n)[np.clip(rounding(at), 0, n - 1).astype(int)])
    at = np.clip(at.astype(np.float64), 0, n - 1)
    low = np.minimum(np.floor(at).astype(int), n - 1)
    high, weight = np.minimum(low + 1, n - 1), (at - low)[:, None]
    return np.asarray(np.eye(n)[low] * (1 - weight) + np.eye(n)[high] * weight)


resize = Rule("transposed", _resize, _size)
