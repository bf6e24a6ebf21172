"""Pooling: maxima by switches or centres (Eqs. 8 and 9), averages as affine layers (Eq. 6), norms by BP."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from revgraph.reference.layer import Array, Layer, Operator, Reversed
from revgraph.reference.reductions import axes, quotient, unpool_first, unpool_middle
from revgraph.reference.windows import Window, col2im, im2col, window


def _pooled(layer: Layer) -> Window:
    return window(layer, layer.get("kernel_shape"))


def _max_pool(layer: Layer, x: Array) -> Array:
    """y_u = max of x_v over v in N(u) (Eq. 8)."""
    return np.asarray(im2col(x, _pooled(layer), fill=-np.inf).max(axis=2))


def _unpool_switches(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat_v = sum of y_hat_u over s(u) = v (Eq. 9); of equal maxima s is the first in row-major order."""
    columns = im2col(layer.x, _pooled(layer), fill=-np.inf)
    hats = np.zeros_like(columns)
    np.put_along_axis(hats, columns.argmax(axis=2, keepdims=True), y_hat[:, :, None], axis=2)
    return col2im(hats, _pooled(layer))


def _unpool_centre(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat_v = sum of y_hat_u over the windows centred on v (Sect. 2.2), of two centres the first."""
    kernel = layer.get("kernel_shape")
    hats = np.zeros((*y_hat.shape[:2], math.prod(kernel), *y_hat.shape[2:]))
    hats[:, :, np.ravel_multi_index([(k - 1) // 2 for k in kernel], kernel)] = y_hat
    return col2im(hats, _pooled(layer))


def _counted(layer: Layer) -> Array:
    """|N(u)|, (1, 1, *out): beyond the pads, where rounding up may reach, no pixel counts."""
    steps = _pooled(layer)
    if layer.get("count_include_pad", 0):
        steps = [replace(a, size=a.before + a.size + a.after, before=0, after=0) for a in steps]
    return np.asarray(im2col(np.ones((1, 1, *(axis.size for axis in steps))), steps).sum(axis=2))


def _average_pool(layer: Layer, x: Array) -> Array:
    """y_u = mean of x_v over v in N(u)."""
    return np.asarray(im2col(x, _pooled(layer)).sum(axis=2) / _counted(layer))


def _average_pool_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat_v = sum of y_hat_u / |N(u)| over the u with v in N(u) (Eq. 6)."""
    share = (y_hat / _counted(layer))[:, :, None]
    return col2im(share.repeat(math.prod(layer.get("kernel_shape")), axis=2), _pooled(layer))


def _length_pool(layer: Layer, x: Array) -> Array:
    """y_u = (sum of |x_v|^p over v in N(u))^(1/p)."""
    p = layer.get("p", 2)
    return np.asarray(im2col(np.abs(x) ** p, _pooled(layer)).sum(axis=2) ** (1 / p))


def _length_pool_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat_v = sgn(x_v) |x_v|^(p-1) * sum of y_hat_u / y_u^(p-1) over the u with v in N(u) (Eq. 5)."""
    share = quotient(y_hat, _length_pool(layer, layer.x) ** (layer.get("p", 2) - 1))[:, :, None]
    around = col2im(share.repeat(math.prod(layer.get("kernel_shape")), axis=2), _pooled(layer))
    return _length_slope(layer) * around


def _length_slope(layer: Layer) -> Array:
    return np.asarray(np.sign(layer.x) * np.abs(layer.x) ** (layer.get("p", 2) - 1))


# ----- One window, the whole plane -----


def _plane(layer: Layer) -> tuple[int, ...]:
    return tuple(range(2, layer.x.ndim))


def _global_average_pool_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat_v = y_hat / |picture| (Eq. 6)."""
    return np.broadcast_to(y_hat / math.prod(layer.x.shape[2:]), layer.x.shape)


def _global_length_pool(layer: Layer, x: Array) -> Array:
    """y = (sum of |x_v|^p)^(1/p)."""
    p = layer.get("p", 2)
    return np.asarray((np.abs(x) ** p).sum(axis=_plane(layer), keepdims=True) ** (1 / p))


def _global_length_pool_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat_v = sgn(x_v) |x_v|^(p-1) * y_hat / y^(p-1) (Eq. 5)."""
    y = _global_length_pool(layer, layer.x)
    return _length_slope(layer) * quotient(y_hat, y ** (layer.get("p", 2) - 1))


MAX_POOL: Mapping[str, Mapping[str, Reversed]] = {
    "": {
        "MaxPool": _unpool_switches,
        "GlobalMaxPool": unpool_first(_plane, np.argmax),
        "ReduceMax": unpool_first(axes, np.argmax),
        "ReduceMin": unpool_first(axes, np.argmin),
    },
    "-centre": {
        "MaxPool": _unpool_centre,
        "GlobalMaxPool": unpool_middle(_plane),
        "ReduceMax": unpool_middle(axes),
        "ReduceMin": unpool_middle(axes),
    },
}
OPERATORS: Mapping[str, Operator] = {
    "AveragePool": Operator(_average_pool, _average_pool_reversed),
    "GlobalAveragePool": Operator(
        lambda layer, x: x.mean(axis=_plane(layer), keepdims=True), _global_average_pool_reversed
    ),
    "GlobalLpPool": Operator(_global_length_pool, _global_length_pool_reversed),
    "GlobalMaxPool": Operator(lambda layer, x: x.max(axis=_plane(layer), keepdims=True)),
    "LpPool": Operator(_length_pool, _length_pool_reversed),
    "MaxPool": Operator(_max_pool),
}
