"""Resize and Upsample: along each axis y = M x, reversed x_hat = M^T y_hat (Eq. 6)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from revgraph.reference.layer import Array, Layer, Operator

_MODE = "coordinate_transformation_mode"


@dataclass(frozen=True)
class _Axis:
    """`size` pixels sampled at `out` places.

    Coordinates are float32, as onnxruntime has them: which pixel is nearest can hang on the last bit.
    """

    size: int
    out: int
    scale: np.float32
    roi: tuple[float, float]


def _sampled(layer: Layer) -> list[_Axis]:
    """The axes of x; those that `axes` leaves out keep their pixels."""
    if layer.get("antialias", 0) and layer.get(_MODE) == "tf_crop_and_resize":
        raise layer.refusal("onnxruntime extrapolates axes that antialias leaves alone", "crop it with Slice")
    rank, late = layer.x.ndim, layer.opset >= 11
    axes = [axis % rank for axis in layer.get("axes") or range(rank)]
    scales = layer.get_or_read("scales", 2 if late else 1)
    sizes = layer.get_or_read("sizes", 3) if late else None
    roi = (layer.get_or_read("roi", 1) if late else None) or [0.0] * len(axes) + [1.0] * len(axes)
    whole = [_Axis(n, n, np.float32(1), (0.0, 1.0)) for n in layer.x.shape]
    given = _by_scale(layer, axes, scales) if scales else _by_size(layer, axes, sizes or [])
    for axis, (out, scale), *ends in zip(axes, given, roi[: len(axes)], roi[len(axes) :], strict=True):
        whole[axis] = _Axis(layer.x.shape[axis], out, scale, (ends[0], ends[1]))
    return _settled(layer, whole)


def _settled(layer: Layer, axes: list[_Axis]) -> list[_Axis]:
    """Where no size changes, pixels are copied, whatever the scales say; with antialias, axis by axis."""
    same = [axis.out == axis.size for axis in axes]
    copied = same if layer.get("antialias", 0) else [all(same)] * len(axes)
    return [replace(a, scale=np.float32(1)) if copy else a for a, copy in zip(axes, copied, strict=True)]


def _by_scale(layer: Layer, axes: list[int], scales: list[float]) -> list[tuple[int, np.float32]]:
    factors = np.array(scales, np.float32)
    return [
        (int(np.float32(layer.x.shape[axis]) * scale), scale)
        for axis, scale in zip(axes, factors, strict=True)
    ]


def _by_size(layer: Layer, axes: list[int], sizes: list[int]) -> list[tuple[int, np.float32]]:
    """Stretched to `sizes`; or one scale for all axes, with which none is larger, or none is smaller."""
    policy, shape = layer.get("keep_aspect_ratio_policy", "stretch"), layer.x.shape
    scales = [np.float32(n) / np.float32(shape[axis]) for axis, n in zip(axes, sizes, strict=True)]
    if policy == "stretch":
        return list(zip(sizes, scales, strict=True))
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [(math.floor(float(scale * np.float32(shape[axis])) + 0.5), scale) for axis in axes]


# ----- Where each pixel of y lies in x -----


def _crop_and_resize(u: Array, axis: _Axis) -> Array:
    (start, end), last = np.array(axis.roi, np.float32), np.float32(axis.size - 1)
    if axis.out == 1:
        return np.full_like(u, np.float32(0.5) * (start + end) * last)
    return np.asarray(start * last + u * (end - start) * last / np.float32(axis.out - 1))


def _half_pixel_symmetric(u: Array, axis: _Axis) -> Array:
    """Centred on x where y's size was rounded."""
    adjustment = np.float32(axis.out) / (axis.scale * np.float32(axis.size))
    offset = np.float32(axis.size / 2) * (np.float32(1) - adjustment)
    exact = offset + (u.astype(np.float64) + 0.5) / np.float64(axis.scale) - 0.5
    return np.asarray(exact, np.float32)


COORDINATES: Mapping[str, Callable[[Array, _Axis], Array]] = {
    "align_corners": lambda u, axis: u * np.float32(axis.size - 1) / np.float32(max(axis.out - 1, 1)),
    "asymmetric": lambda u, axis: u / axis.scale,
    "half_pixel": lambda u, axis: (u + 0.5) / axis.scale - 0.5,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": lambda u, axis: (u + 0.5) / axis.scale - 0.5 if axis.out > 1 else 0 * u,
    "tf_crop_and_resize": _crop_and_resize,
    "tf_half_pixel_for_nn": lambda u, axis: (u + 0.5) / axis.scale,
}


def _coordinates(layer: Layer, axis: _Axis) -> Array:
    """(out,), float32 values in float64."""
    mode = layer.get(_MODE, "half_pixel" if layer.opset >= 11 else "asymmetric")
    v = COORDINATES[mode](np.arange(axis.out, dtype=np.float32), axis)
    return np.asarray(v).astype(np.float64)


# ----- The matrices -----


def _tent(d: Array) -> Array:
    return np.asarray(np.maximum(1 - np.abs(d), 0.0))


def _cubic(a: float) -> Callable[[Array], Array]:
    def kernel(d: Array) -> Array:
        d = np.abs(d)
        near, far = ((a + 2) * d - (a + 3)) * d**2 + 1, a * (((d - 5) * d + 8) * d - 4)
        return np.where(d < 1, near, np.where(d < 2, far, 0.0))

    return kernel


def _tied(v: Array) -> Array:
    """What float32 puts beside the middle of two pixels belongs there: onnxruntime allows it 1e-6."""
    middle = np.floor(v) + 0.5
    return np.where(np.abs(v - middle) <= 1e-6, middle, v)


NEAREST: Mapping[str, Callable[[Array], Array]] = {
    "ceil": np.ceil,
    "floor": np.floor,
    "round_prefer_ceil": lambda v: np.floor(_tied(v) + 0.5),
    "round_prefer_floor": lambda v: np.ceil(_tied(v) - 0.5),
}


def _nearest_mode(layer: Layer, axis: _Axis) -> str:
    """Before opset 11 the pixel before v when enlarging, behind it when reducing."""
    default = "round_prefer_floor" if layer.opset >= 11 else "ceil" if axis.scale < 1 else "floor"
    return str(layer.get("nearest_mode", default))


def _matrix(layer: Layer, axis: _Axis) -> Array | None:
    """M of y = M x, (out, size); None where it is the identity, as for every scale of 1."""
    if axis.scale == 1:
        return None
    v, mode = _coordinates(layer, axis), layer.get("mode", "nearest")
    if mode == "cubic":
        return _weights(layer, axis, v, _cubic(layer.get("cubic_coeff_a", -0.75)))
    if mode == "nearest":
        v = NEAREST[_nearest_mode(layer, axis)](v)
    return _weights(layer, axis, v, _tent)


def _weights(layer: Layer, axis: _Axis, v: Array, kernel: Callable[[Array], Array]) -> Array:
    """Of the pixels around v; those outside the picture are left out, or stand for its edge."""
    # Against aliasing the kernel grows with the distance of the samples.
    stretch = min(float(axis.scale), 1.0) if layer.get("antialias", 0) else 1.0
    reach, pixels = math.ceil(3 / stretch), np.arange(axis.size)
    around = np.arange(-reach, axis.size + reach)
    weights = kernel((np.clip(v, -2, axis.size + 1)[:, None] - around) * stretch)
    if layer.get("exclude_outside", 0):
        weights = weights * ((around >= 0) & (around < axis.size))
    edge = np.clip(around, 0, axis.size - 1)[:, None] == pixels
    return np.asarray(weights / weights.sum(axis=1, keepdims=True) @ edge)


def _outside(layer: Layer, axes: list[_Axis]) -> Array:
    """Where y is the extrapolation value: the places that tf_crop_and_resize finds outside of x."""
    found = np.zeros([axis.out for axis in axes], bool)
    if layer.get(_MODE) != "tf_crop_and_resize":
        return found
    for i, axis in enumerate(axes):
        if axis.scale != 1:
            v = _coordinates(layer, axis)
            beyond = (v < 0) | (v > axis.size - 1)
            found |= beyond.reshape([-1 if j == i else 1 for j in range(len(axes))])
    return found


def _along_axes(y: Array, matrices: list[Array | None]) -> Array:
    """M y along each axis in turn."""
    for i, matrix in enumerate(matrices):
        if matrix is not None:
            y = np.moveaxis(np.tensordot(matrix, y, (1, i)), 0, i)
    return y


def _resize(layer: Layer, x: Array, *_: Any) -> Array:
    """y = M x."""
    axes = _sampled(layer)
    y = _along_axes(x, [_matrix(layer, axis) for axis in axes])
    return np.where(_outside(layer, axes), layer.get("extrapolation_value", 0.0), y)


def _resize_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat = M^T y_hat (Eq. 6)."""
    axes = _sampled(layer)
    matrices = [_matrix(layer, axis) for axis in axes]
    inside = np.where(_outside(layer, axes), 0.0, y_hat)
    return _along_axes(inside, [matrix if matrix is None else matrix.T for matrix in matrices])


OPERATORS: Mapping[str, Operator] = {
    "Resize": Operator(_resize, _resize_reversed),
    "Upsample": Operator(_resize, _resize_reversed),
}
