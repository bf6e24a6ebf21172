"""Activations. Rectifiers take the paper's four choices (Eqs. 7 and 10); gates and squashers back-propagate.

The r of a rectifier is its slope at x, which for ReLU is the mask [x > 0].
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from revgraph.reference.layer import Array, Forward, Layer, Operator, Reversed, Slope, elementwise

RELU: Mapping[str, Callable[[Array, Array], Array]] = {
    "identity": lambda y_hat, slope: y_hat,
    "deconvnet": lambda y_hat, slope: np.maximum(y_hat, 0.0),
    "salinet": lambda y_hat, slope: y_hat * slope,
    "desalinet": lambda y_hat, slope: np.maximum(y_hat * slope, 0.0),
}


def rectified(choice: Callable[[Array, Array], Array], slope: Slope) -> Reversed:
    """x_hat as one of the four choices makes it of y_hat and the slope at x."""
    return lambda layer, y_hat, _: choice(y_hat, slope(layer))


def _rectifier(forward: Forward, slope: Slope) -> Operator:
    return Operator(forward, slope=slope)


def _squasher(forward: Forward, slope: Slope) -> Operator:
    """x_hat = y_hat * (dy / dx) in every variant (Eq. 5)."""
    return Operator(forward, elementwise(lambda layer, _: slope(layer)))


# ----- Pieces of lines -----


def _clip_bounds(layer: Layer) -> tuple[Array, Array]:
    """The bounds lo and hi, infinite where they are left out."""
    lo, hi = layer.get_or_read("min", 1), layer.get_or_read("max", 2)
    return np.asarray(-np.inf if lo is None else lo), np.asarray(np.inf if hi is None else hi)


def _clip(layer: Layer, x: Array, *_: Array) -> Array:
    """y = min{max{x, lo}, hi}."""
    lo, hi = _clip_bounds(layer)
    return np.minimum(np.maximum(x, lo), hi).astype(x.dtype)


def _clip_slope(layer: Layer) -> Array:
    """[lo < x < hi]."""
    lo, hi = _clip_bounds(layer)
    return np.asarray((lo < layer.x) & (layer.x < hi))


def _leaky(layer: Layer, x: Array) -> Array:
    """y = x where x > 0, alpha x elsewhere."""
    return np.asarray(x * _leaky_slope(layer))


def _leaky_slope(layer: Layer) -> Array:
    return np.where(layer.x > 0, 1.0, layer.get("alpha", 0.01))


def _prelu(layer: Layer, x: Array, _slope: Array) -> Array:
    """y = x where x > 0, x times the slope that was learned elsewhere."""
    return np.asarray(x * _prelu_slope(layer))


def _prelu_slope(layer: Layer) -> Array:
    x, slope = layer.inputs
    return np.where(x > 0, 1.0, slope)


def _thresholded_slope(layer: Layer) -> Array:
    """[x > alpha]."""
    return np.asarray(layer.x > layer.get("alpha", 1.0))


def _hard_sigmoid(layer: Layer, x: Array) -> Array:
    """y = min{max{alpha x + beta, 0}, 1}."""
    return np.asarray(np.clip(layer.get("alpha", 0.2) * x + layer.get("beta", 0.5), 0.0, 1.0))


def _hard_sigmoid_slope(layer: Layer) -> Array:
    """Alpha where 0 < y < 1."""
    y = _hard_sigmoid(layer, layer.x)
    return np.asarray(layer.get("alpha", 0.2) * ((y > 0) & (y < 1)))


def _sixth(x: Array) -> Array:
    return np.clip(x / 6 + 0.5, 0.0, 1.0)


def _hard_swish_slope(layer: Layer) -> Array:
    """Of y = x * min{max{x / 6 + 1/2, 0}, 1}: its second factor, and x / 6 where -3 < x < 3."""
    return np.asarray(_sixth(layer.x) + layer.x / 6 * (np.abs(layer.x) < 3))


# ----- Exponentials -----


def _exponential(layer: Layer) -> tuple[float, float, float]:
    """(a, b, c) of y = c x where x > 0, c a (exp(x / b) - 1) elsewhere."""
    if layer.node.op_type == "Selu":
        return layer.get("alpha", 1.6732632), 1.0, layer.get("gamma", 1.0507010)
    alpha = layer.get("alpha", 1.0)
    return alpha, alpha if layer.node.op_type == "Celu" else 1.0, 1.0


def _elu(layer: Layer, x: Array) -> Array:
    a, b, c = _exponential(layer)
    return np.asarray(c * np.where(x > 0, x, a * np.expm1(np.minimum(x, 0.0) / b)))


def _elu_slope(layer: Layer) -> Array:
    """Elu, Selu and Celu: c where x > 0, c a / b exp(x / b) elsewhere."""
    (a, b, c), x = _exponential(layer), layer.x
    return np.asarray(c * np.where(x > 0, 1.0, a / b * np.exp(np.minimum(x, 0.0) / b)))


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(0.0, x))


def _sigmoid(x: Array) -> Array:
    return np.asarray((1.0 + np.tanh(x / 2)) / 2)


def _swish_slope(layer: Layer) -> Array:
    """Of y = x * s, s = sigmoid(alpha x): s + alpha x s (1 - s)."""
    ax = layer.get("alpha", 1.0) * layer.x
    s = _sigmoid(ax)
    return np.asarray(s + ax * s * (1 - s))


def _mish_slope(layer: Layer) -> Array:
    """Of y = x * t, t = tanh(softplus(x)): t + x (1 - t^2) sigmoid(x)."""
    t = np.tanh(_softplus(layer.x))
    return np.asarray(t + layer.x * (1 - t**2) * _sigmoid(layer.x))


# ----- Gelu: y = x * Phi(x), Phi the normal distribution or its approximation by tanh -----


_erf = np.vectorize(math.erf, otypes=[np.float64])
_ROOT = math.sqrt(2 / math.pi)


def _phi(layer: Layer, x: Array) -> Array:
    if layer.get("approximate", "none") == "tanh":
        return np.asarray((1 + np.tanh(_ROOT * (x + 0.044715 * x**3))) / 2)
    return np.asarray((1 + _erf(x / math.sqrt(2))) / 2)


def _gelu_slope(layer: Layer) -> Array:
    """Phi(x) + x * Phi'(x)."""
    x, phi = layer.x, _phi(layer, layer.x)
    if layer.get("approximate", "none") == "tanh":
        return np.asarray(phi + x * 2 * phi * (1 - phi) * _ROOT * (1 + 3 * 0.044715 * x**2))
    return np.asarray(phi + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi))


# ----- Softmax -----


def _softmax_axes(layer: Layer) -> Any:
    """The `axis`, before opset 13 every axis from there on."""
    every = tuple(range(layer.x.ndim))
    return every[layer.get("axis", 1) :] if layer.opset < 13 else every[layer.get("axis", -1)]


def _log_softmax(layer: Layer, x: Array) -> Array:
    """y = x - log sum exp x."""
    axes = _softmax_axes(layer)
    x = x - x.max(axis=axes, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=axes, keepdims=True)))


def _softmax(layer: Layer, x: Array) -> Array:
    """y = exp x / sum exp x."""
    return np.asarray(np.exp(_log_softmax(layer, x)))


def _softmax_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat = y * (y_hat - sum of y_hat y) (Eq. 5)."""
    y = _softmax(layer, layer.x)
    return np.asarray(y * (y_hat - (y_hat * y).sum(axis=_softmax_axes(layer), keepdims=True)))


def _log_softmax_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat = y_hat - softmax(x) * sum of y_hat (Eq. 5)."""
    return np.asarray(y_hat - _softmax(layer, layer.x) * y_hat.sum(axis=_softmax_axes(layer), keepdims=True))


OPERATORS: Mapping[str, Operator] = {
    "Celu": _rectifier(_elu, _elu_slope),
    "Clip": _rectifier(_clip, _clip_slope),
    "Elu": _rectifier(_elu, _elu_slope),
    "Erf": _squasher(lambda _, x: _erf(x), lambda layer: 2 / math.sqrt(math.pi) * np.exp(-(layer.x**2))),
    "Gelu": _rectifier(lambda layer, x: x * _phi(layer, x), _gelu_slope),
    "HardSigmoid": _squasher(_hard_sigmoid, _hard_sigmoid_slope),
    "HardSwish": _rectifier(lambda _, x: x * _sixth(x), _hard_swish_slope),
    "LeakyRelu": _rectifier(_leaky, _leaky_slope),
    "LogSoftmax": Operator(_log_softmax, _log_softmax_reversed),
    "Mish": _rectifier(lambda _, x: x * np.tanh(_softplus(x)), _mish_slope),
    "PRelu": _rectifier(_prelu, _prelu_slope),
    "Relu": _rectifier(lambda _, x: np.maximum(x, 0), lambda layer: layer.x > 0),
    "Selu": _rectifier(_elu, _elu_slope),
    "Sigmoid": _squasher(lambda _, x: _sigmoid(x), lambda layer: _sigmoid(layer.x) * _sigmoid(-layer.x)),
    "Softmax": Operator(_softmax, _softmax_reversed),
    "Softplus": _rectifier(lambda _, x: _softplus(x), lambda layer: _sigmoid(layer.x)),
    "Swish": _rectifier(lambda layer, x: x * _sigmoid(layer.get("alpha", 1.0) * x), _swish_slope),
    "Tanh": _squasher(lambda _, x: np.tanh(x), lambda layer: 1 - np.tanh(layer.x) ** 2),
    "ThresholdedRelu": _rectifier(lambda layer, x: x * _thresholded_slope(layer), _thresholded_slope),
}
