"""Reductions along axes: sums are affine (Eq. 6), norms by BP (Eq. 5), extrema as one window (Eq. 9)."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from revgraph.reference.layer import Array, Forward, Layer, Operator, Reversed

Axes: TypeAlias = Callable[[Layer], tuple[int, ...]]


def axes(layer: Layer) -> tuple[int, ...]:
    """The axes that are reduced, in order: without any, all of them, or none with noop_with_empty_axes."""
    given = layer.get_or_read("axes", 1)
    otherwise = () if layer.get("noop_with_empty_axes", 0) else range(layer.x.ndim)
    return tuple(sorted(axis % layer.x.ndim for axis in given or otherwise))


def _reduction(reduction: Callable[..., Any]) -> Forward:
    return lambda layer, x, *_: reduction(x, axis=axes(layer), keepdims=bool(layer.get("keepdims", 1)))


def _kept(layer: Layer, reduced: Array) -> Array:
    """What is left of a reduction, with the axes that it reduced, of one pixel each."""
    return reduced.reshape([1 if axis in axes(layer) else n for axis, n in enumerate(layer.x.shape)])


def _sloped(reduction: Callable[..., Any], slope: Callable[[Array, Array], Any]) -> Operator:
    """x_hat_v = y_hat * (dy / dx_v) of the y that v is in, the slope given by x and y (Eq. 5)."""

    def reversed_(layer: Layer, y_hat: Array, _: int) -> Array:
        y = reduction(layer.x, axis=axes(layer), keepdims=True)
        return np.asarray(_kept(layer, y_hat) * np.broadcast_to(slope(layer.x, y), layer.x.shape))

    return Operator(_reduction(reduction), reversed_)


def quotient(x: Array, y: Array) -> Array:
    """x / y, and 0 where y is 0."""
    return np.divide(x, y, out=np.zeros(np.broadcast_shapes(x.shape, y.shape)), where=y != 0)


# ----- Sums, means and norms -----


def _mean_slope(x: Array, y: Array) -> float:
    return y.size / x.size


def _l1(x: Array, **how: Any) -> Any:
    """y = sum |x|."""
    return np.abs(x).sum(**how)


def _l2(x: Array, **how: Any) -> Any:
    """y = sqrt(sum x^2)."""
    return np.sqrt((x**2).sum(**how))


def _log_sum(x: Array, **how: Any) -> Any:
    """y = log(sum x)."""
    return np.log(x.sum(**how))


def _sum_square(x: Array, **how: Any) -> Any:
    """y = sum x^2."""
    return (x**2).sum(**how)


# ----- Extrema: the window is all that is reduced -----


def unpool_first(reduced: Axes, position: Callable[..., Any]) -> Reversed:
    """x_hat_v = y_hat at the first extremum in row-major order, else 0 (Eq. 9)."""

    def reversed_(layer: Layer, y_hat: Array, _: int) -> Array:
        return _unpool(layer, y_hat, reduced(layer), lambda rows: position(rows, axis=-1))

    return reversed_


def unpool_middle(reduced: Axes) -> Reversed:
    """x_hat_v = y_hat at the window's centre, of two the first, else 0 (Sect. 2.2)."""

    def reversed_(layer: Layer, y_hat: Array, _: int) -> Array:
        sizes = [layer.x.shape[axis] for axis in reduced(layer)]
        centre = np.ravel_multi_index([(n - 1) // 2 for n in sizes], sizes) if sizes else 0
        return _unpool(layer, y_hat, reduced(layer), lambda rows: np.full(rows.shape[:-1], centre))

    return reversed_


def _unpool(layer: Layer, y_hat: Array, reduced: tuple[int, ...], switch: Callable[[Array], Any]) -> Array:
    """y_hat at one position of each row, a row what is reduced to one y."""
    last = range(-len(reduced), 0)
    x = np.moveaxis(layer.x, reduced, last)
    rows = x.reshape(*x.shape[: x.ndim - len(reduced)], -1)
    hats = np.zeros(rows.shape)
    np.put_along_axis(hats, np.asarray(switch(rows))[..., None], y_hat.reshape(*rows.shape[:-1], 1), axis=-1)
    return np.moveaxis(hats.reshape(x.shape), last, reduced)


OPERATORS: Mapping[str, Operator] = {
    "ReduceL1": _sloped(_l1, lambda x, _: np.sign(x)),
    "ReduceL2": _sloped(_l2, quotient),
    "ReduceLogSum": _sloped(_log_sum, lambda _, y: np.exp(-y)),
    "ReduceLogSumExp": _sloped(np.logaddexp.reduce, lambda x, y: np.exp(x - y)),
    "ReduceMax": Operator(_reduction(np.max)),
    "ReduceMean": _sloped(np.mean, _mean_slope),
    "ReduceMin": Operator(_reduction(np.min)),
    "ReduceProd": Operator(_reduction(np.prod)),
    "ReduceSum": _sloped(np.sum, lambda *_: 1.0),
    "ReduceSumSquare": _sloped(_sum_square, lambda x, _: 2 * x),
}
