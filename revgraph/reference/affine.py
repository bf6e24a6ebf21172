"""Affine layers: vec y = A vec x + b, reversed vec x_hat = A^T vec y_hat (Eq. 6)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from revgraph.reference.layer import Array, Layer, Operator, per_channel, unbroadcast
from revgraph.reference.windows import col2im, im2col, transposed_window, window


def _matrices(layer: Layer) -> Array:
    """The filters F as one matrix for each of the G groups: (M, C, *kernel) to (G, M / G, C * K)."""
    group, weight = layer.get("group", 1), layer.inputs[1]
    return np.asarray(weight.reshape(group, len(weight) // group, -1))


def _conv(layer: Layer, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """vec y = rho(F) vec x + b."""
    steps, f = window(layer, weight.shape[2:]), _matrices(layer)
    columns = im2col(x, steps).reshape(len(x), len(f), f.shape[2], -1)
    y = (f @ columns).reshape(len(x), len(weight), *(axis.out for axis in steps))
    return y if bias is None else y + per_channel(bias, x)


def _conv_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """vec x_hat = rho(F)^T vec y_hat (Eq. 6)."""
    steps, f = window(layer, layer.inputs[1].shape[2:]), _matrices(layer)
    columns = f.swapaxes(1, 2) @ y_hat.reshape(len(y_hat), len(f), f.shape[1], -1)
    return col2im(columns.reshape(*layer.x.shape[:2], -1, *y_hat.shape[2:]), steps)


def _conv_transpose(layer: Layer, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """vec y = rho(F)^T vec x + b."""
    steps, f = transposed_window(layer, weight.shape[2:]), _matrices(layer)
    columns = f.swapaxes(1, 2) @ x.reshape(len(x), len(f), f.shape[1], -1)
    y = col2im(columns.reshape(len(x), len(f) * weight.shape[1], -1, *x.shape[2:]), steps)
    return y if bias is None else y + per_channel(bias, x)


def _conv_transpose_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """vec x_hat = rho(F) vec y_hat (Eq. 6)."""
    steps, f = transposed_window(layer, layer.inputs[1].shape[2:]), _matrices(layer)
    columns = im2col(y_hat, steps).reshape(len(y_hat), len(f), f.shape[2], -1)
    return np.asarray((f @ columns).reshape(layer.x.shape))


def _gemm(layer: Layer, a: Array, b: Array, c: Any = None) -> Array:
    """Y = alpha A B + beta C, A and B transposed as their flags say."""
    c = 0.0 if c is None else c
    a, b = a.T if layer.get("transA", 0) else a, b.T if layer.get("transB", 0) else b
    return np.asarray(layer.get("alpha", 1.0) * (a @ b) + layer.get("beta", 1.0) * c)


def _gemm_reversed(layer: Layer, y_hat: Array, operand: int) -> Array:
    """A_hat = alpha Y_hat B^T, B_hat = alpha A^T Y_hat, C_hat = beta Y_hat (Eq. 6), A and B as multiplied."""
    if operand == 2:
        return unbroadcast(layer.get("beta", 1.0) * y_hat, layer.inputs[2].shape)
    turned = [layer.get("transA", 0), layer.get("transB", 0)]
    a, b = (x.T if turn else x for x, turn in zip(layer.inputs, turned, strict=False))
    x_hat = layer.get("alpha", 1.0) * (a.T @ y_hat if operand else y_hat @ b.T)
    return np.asarray(x_hat.T if turned[operand] else x_hat)


def _matmul_reversed(layer: Layer, y_hat: Array, operand: int) -> Array:
    """A_hat = Y_hat B^T, B_hat = A^T Y_hat (Eq. 6), summed over the pictures that share a matrix.

    A vector stands for a row on the left, for a column on the right.
    """
    a, b = layer.inputs
    y_hat = np.expand_dims(y_hat, [axis for axis, x in ((-2, a), (-1, b)) if x.ndim == 1])
    rows, columns = np.atleast_2d(a), b[:, None] if b.ndim == 1 else b
    x_hat = rows.swapaxes(-1, -2) @ y_hat if operand else y_hat @ columns.swapaxes(-1, -2)
    return unbroadcast(x_hat, (rows, columns)[operand].shape).reshape(layer.inputs[operand].shape)


OPERATORS: Mapping[str, Operator] = {
    "Conv": Operator(_conv, _conv_reversed),
    "ConvTranspose": Operator(_conv_transpose, _conv_transpose_reversed),
    "Gemm": Operator(_gemm, _gemm_reversed, None),
    "MatMul": Operator(lambda _, a, b: a @ b, _matmul_reversed, None),
}
