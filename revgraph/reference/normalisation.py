"""Normalisation by stored statistics (affine), and across neighbouring channels (LRN)."""

from collections.abc import Mapping
from functools import reduce

import numpy as np

from revgraph.reference.layer import Array, Layer, Operator, Reversed, as_is, per_channel


def _batch_norm(layer: Layer, x: Array, scale: Array, bias: Array, mean: Array, var: Array) -> Array:
    """y = (x - mean) * scale / sqrt(var + epsilon) + bias."""
    if layer.get("training_mode", 0):
        raise layer.refusal("it normalises by the batch (training_mode=1)", "export the model for inference")
    factor = scale / np.sqrt(var + layer.get("epsilon", 1e-5))
    return (x - per_channel(mean, x)) * per_channel(factor, x) + per_channel(bias, x)


def _batch_norm_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat = y_hat * scale / sqrt(var + epsilon) (Eq. 6)."""
    x, scale, _bias, _mean, var = layer.inputs
    return y_hat * per_channel(scale / np.sqrt(var + layer.get("epsilon", 1e-5)), x)


# ----- LRN -----


def _neighbours(layer: Layer, x: Array, before: int, after: int) -> Array:
    """The sum over channels c - before to c + after, shaped like x.

    Channels are axis 1, as ONNX has it; a written-out LRN may have found them at another.
    """
    axis = layer.get("axis", 1)
    x = np.moveaxis(x, axis, 0)
    padded = np.pad(x, [(before, after), *[(0, 0)] * (x.ndim - 1)])
    sums = reduce(np.add, (padded[i : i + len(x)] for i in range(before + after + 1)))
    return np.moveaxis(sums, 0, axis)


def _lrn_base(layer: Layer) -> Array:
    """D = bias + alpha / n * (sum of x^2 over the n channels around), shaped like x."""
    n = layer.get("size")
    squares = _neighbours(layer, layer.x**2, (n - 1) // 2, n // 2)
    return np.asarray(layer.get("bias", 1.0) + layer.get("alpha", 1e-4) / n * squares)


def _lrn(layer: Layer, x: Array) -> Array:
    """y = x / D^beta."""
    return np.asarray(x / _lrn_base(layer) ** layer.get("beta", 0.75))


def _lrn_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat = y_hat / D^beta - 2 alpha beta / n * x * (sum of y_hat x / D^(beta + 1) around) (Eq. 5)."""
    d, n, beta = _lrn_base(layer), layer.get("size"), layer.get("beta", 0.75)
    through = _neighbours(layer, y_hat * layer.x / d ** (beta + 1), n // 2, (n - 1) // 2)
    return np.asarray(y_hat / d**beta - 2 * layer.get("alpha", 1e-4) * beta / n * layer.x * through)


LRN: Mapping[str, Reversed] = {"identity": as_is, "bp": _lrn_reversed}


OPERATORS: Mapping[str, Operator] = {
    "BatchNormalization": Operator(_batch_norm, _batch_norm_reversed),
    "LRN": Operator(_lrn),
}
