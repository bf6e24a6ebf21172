"""Normalisation of rows of x by their own size: one row per picture, channel, group of channels, or pixel.

y = n * scale + bias with n = c / sigma, where c is x, or x minus the row's mean, and sigma the size of c.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from revgraph.reference.layer import Array, Layer, Operator, per_channel
from revgraph.reference.reductions import quotient

Axes: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class _Rows:
    """What x is divided by.

    Attributes:
        x: The input, in a shape that has its rows along `axes`.
        axes: As said.
        centred: Whether a row loses its mean first.
    """

    x: Array
    axes: Axes
    centred: bool = True

    @property
    def c(self) -> Array:
        return self.without_mean(self.x) if self.centred else self.x

    @property
    def mean_square(self) -> Array:
        return self.mean(self.c**2)

    def mean(self, values: Array) -> Array:
        return np.asarray(values.mean(axis=self.axes, keepdims=True))

    def sum(self, values: Array) -> Array:
        return np.asarray(values.sum(axis=self.axes, keepdims=True))

    def without_mean(self, values: Array) -> Array:
        return values - self.mean(values)


Read: TypeAlias = Callable[[Layer], _Rows]
Size: TypeAlias = Callable[[Layer, _Rows], tuple[Array, Array]]
Spread: TypeAlias = Callable[[Layer, Array], Array]


# ----- Sizes: sigma, and d sigma / dc -----


def _deviation(layer: Layer, rows: _Rows) -> tuple[Array, Array]:
    """sigma = sqrt(mean of c^2 + epsilon)."""
    sigma = np.sqrt(rows.mean_square + layer.get("epsilon", 1e-5))
    return sigma, rows.c / sigma * (sigma.size / rows.x.size)


def _bare_deviation(_: Layer, rows: _Rows) -> tuple[Array, Array]:
    """sigma = sqrt(mean of c^2) + 1e-9."""
    root = np.sqrt(rows.mean_square)
    return root + 1e-9, quotient(rows.c, root) * (root.size / rows.x.size)


def _length(layer: Layer, rows: _Rows) -> tuple[Array, Array]:
    """sigma = sum of |c|, or sqrt(sum of c^2)."""
    if layer.get("p", 2) == 1:
        return rows.sum(np.abs(rows.c)), np.sign(rows.c)
    sigma = np.sqrt(rows.sum(rows.c**2))
    return sigma, quotient(rows.c, sigma)


# ----- Rows -----


def _per_channel(layer: Layer) -> _Rows:
    return _Rows(layer.x, tuple(range(2, layer.x.ndim)))


def _per_group(layer: Layer) -> _Rows:
    return _Rows(layer.x.reshape(len(layer.x), layer.get("num_groups"), -1), (2,))


def _trailing(layer: Layer) -> Axes:
    """The `axis` and all behind it."""
    return tuple(range(layer.x.ndim))[layer.get("axis", -1) :]


# ----- Scales -----


def _as_they_are(_: Layer, values: Array) -> Array:
    return values


def _channel_spread(layer: Layer, values: Array) -> Array:
    """One value per channel, or, of GroupNormalization before opset 21, one per group of them."""
    return per_channel(values.repeat(layer.x.shape[1] // len(values)), layer.x)


# ----- Operators -----


def _row_norm(read: Read, size: Size, spread: Spread = _as_they_are) -> Operator:
    def forward(layer: Layer, x: Array, scale: Array | None = None, bias: Array | None = None) -> Array:
        """y = c / sigma * scale + bias."""
        rows = read(layer)
        y = quotient(rows.c, size(layer, rows)[0]).reshape(x.shape)
        y = y if scale is None else y * spread(layer, scale)
        return y if bias is None else y + spread(layer, bias)

    def reversed_(layer: Layer, y_hat: Array, _: int) -> Array:
        """x_hat = (n_hat - (d sigma / dc) * sum of n_hat n) / sigma, n_hat = y_hat * scale (Eq. 5)."""
        rows = read(layer)
        sigma, slope = size(layer, rows)
        scale = spread(layer, layer.inputs[1]) if len(layer.inputs) > 1 else 1.0
        n_hat = (y_hat * scale).reshape(rows.x.shape)
        c_hat = quotient(n_hat - slope * rows.sum(n_hat * quotient(rows.c, sigma)), sigma)
        x_hat = rows.without_mean(c_hat) if rows.centred else c_hat
        return x_hat.reshape(y_hat.shape)

    return Operator(forward, reversed_)


def _with_statistics(norm: Operator, read: Read) -> Operator:
    """The operator with the mean and 1 / sigma of its rows as further outputs, which have no x_hat."""

    def forward(layer: Layer, *inputs: Array) -> tuple[Array, ...]:
        rows = read(layer)
        return norm.forward(layer, *inputs), rows.mean(rows.x), 1 / _deviation(layer, rows)[0]

    def reversed_(layer: Layer, y_hat: Array, operand: int) -> Array:
        if layer.output or norm.reversed is None:
            why = f"its output {layer.node.output[layer.output]!r} is used"
            raise layer.refusal(why, "compute the statistics by ReduceMean", "reverse")
        return np.asarray(norm.reversed(layer, y_hat, operand))

    return Operator(forward, reversed_)


def _layer_rows(layer: Layer) -> _Rows:
    return _Rows(layer.x, _trailing(layer))


OPERATORS: Mapping[str, Operator] = {
    "GroupNormalization": _row_norm(_per_group, _deviation, _channel_spread),
    "InstanceNormalization": _row_norm(_per_channel, _deviation, _channel_spread),
    "LayerNormalization": _with_statistics(_row_norm(_layer_rows, _deviation), _layer_rows),
    "LpNormalization": _row_norm(
        lambda layer: _Rows(layer.x, (layer.get("axis", -1),), centred=False), _length
    ),
    "MeanVarianceNormalization": _row_norm(
        lambda layer: _Rows(layer.x, tuple(layer.get("axes", [0, 2, 3]))), _bare_deviation
    ),
    "RMSNormalization": _row_norm(lambda layer: _Rows(layer.x, _trailing(layer), centred=False), _deviation),
}
