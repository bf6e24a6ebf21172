"""Arithmetic on whole tensors, back-propagated in every variant (Eq. 5); comparisons run forward only."""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np

from revgraph.reference.layer import Array, Layer, Operator, elementwise


def _variadic(ufunc: Callable[..., Any], slope: Callable[[Layer, int], Any]) -> Operator:
    return Operator(lambda _, *x: reduce(ufunc, x), elementwise(slope), None)


def _unary(forward: Callable[[Array], Any], slope: Callable[[Array], Any]) -> Operator:
    return Operator(lambda _, x: forward(x), elementwise(lambda layer, _: slope(layer.x)))


def _only_forward(ufunc: Callable[..., Any]) -> Operator:
    return Operator(lambda _, *x: ufunc(*x))


def _div(_: Layer, a: Array, b: Array) -> Array:
    return np.asarray(a / b if a.dtype.kind == "f" else np.trunc(a / b).astype(a.dtype))


def _div_slope(layer: Layer, operand: int) -> Array:
    """1 / b, and -a / b^2 where the divisor is an activation too."""
    a, b = layer.inputs
    return np.asarray(-a / b**2 if operand else 1 / b)


def _power(_: Layer, x: Array, exponent: Array) -> Array:
    return np.power(x, exponent).astype(x.dtype)


def _power_slope(layer: Layer, _: int) -> Array:
    x, exponent = layer.inputs
    return np.asarray(exponent * x ** (exponent - 1))


def _first(extreme: Callable[..., Any]) -> Callable[[Layer, int], Any]:
    """Of Max and Min: [x is the first operand that is the extreme]."""

    def slope(layer: Layer, operand: int) -> Any:
        attains = [x == reduce(extreme, layer.inputs) for x in layer.inputs]
        return reduce(np.greater, [attains[operand], *attains[:operand]])

    return slope


OPERATORS: Mapping[str, Operator] = {
    "Abs": _unary(np.abs, np.sign),
    "Add": _variadic(np.add, lambda _, operand: 1.0),
    "And": _only_forward(np.logical_and),
    "Ceil": _only_forward(np.ceil),
    "Div": Operator(_div, elementwise(_div_slope), None),
    "Equal": _only_forward(np.equal),
    "Exp": _unary(np.exp, np.exp),
    "Floor": _only_forward(np.floor),
    "Greater": _only_forward(np.greater),
    "GreaterOrEqual": _only_forward(np.greater_equal),
    "Less": _only_forward(np.less),
    "LessOrEqual": _only_forward(np.less_equal),
    "Log": _unary(np.log, np.reciprocal),
    "Max": _variadic(np.maximum, _first(np.maximum)),
    "Min": _variadic(np.minimum, _first(np.minimum)),
    "Mul": Operator(
        lambda _, a, b: a * b, elementwise(lambda layer, operand: layer.inputs[1 - operand]), None
    ),
    "Neg": _unary(np.negative, lambda x: -1.0),
    "Not": _only_forward(np.logical_not),
    "Or": _only_forward(np.logical_or),
    "Pow": Operator(_power, elementwise(_power_slope)),
    "Reciprocal": _unary(np.reciprocal, lambda x: -1 / x**2),
    "Round": _only_forward(np.rint),
    "Sqrt": _unary(np.sqrt, lambda x: 0.5 / np.sqrt(x)),
    "Sub": Operator(lambda _, a, b: a - b, elementwise(lambda _, operand: (1.0, -1.0)[operand]), None),
    "Sum": _variadic(np.add, lambda _, operand: 1.0),
}
