"""Constants, shapes and types, quantisation among them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from revgraph.reference.layer import FLOATS, Array, Layer, Operator, as_is


def floats(values: Any) -> Array:
    """An array, in float64 if it holds floating numbers."""
    array = np.asarray(values)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def array(tensor: onnx.TensorProto) -> Array:
    """The tensor's values, in float64 if they are floating numbers."""
    values = onnx.numpy_helper.to_array(tensor)
    return values.astype(np.float64) if tensor.data_type in FLOATS else values


def _constant(layer: Layer) -> Array:
    value = onnx.helper.get_attribute_value(layer.node.attribute[0])
    return array(value) if isinstance(value, onnx.TensorProto) else floats(value)


def _constant_of_shape(layer: Layer, shape: Array) -> Array:
    value = layer.get("value")
    return np.full(shape, 0.0 if value is None else array(value))


def _shape(layer: Layer, x: Array) -> Array:
    return np.array(x.shape[layer.get("start", 0) : layer.get("end")], np.int64)


def _cast(layer: Layer, x: Array) -> Array:
    to = layer.get("to")
    return x.astype(np.float64 if to in FLOATS else onnx.helper.tensor_dtype_to_np_dtype(to))


def _cast_like(_: Layer, x: Array, like: Array) -> Array:
    return x.astype(like.dtype)


def _cast_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat = y_hat, between floating types; from integers too, which a picture may be."""
    kept = layer.inputs[1].dtype.kind == "f" if layer.inputs[1:] else layer.get("to") in FLOATS
    if not kept:
        raise layer.refusal("it rounds to integers", "choose a layer before it", "reverse")
    return y_hat


# ----- Quantisation: reversed, the two return y_hat unchanged -----


def _along_axis(layer: Layer, values: Array) -> Array:
    """One value per tensor, per slice of `axis`, or per block of it, made to meet x."""
    x, axis = layer.x, layer.get("axis", 1)
    if values.size == 1:
        return values.reshape(())
    if values.ndim == 1:
        return values.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])
    return values.repeat(layer.get("block_size"), axis).take(range(x.shape[axis]), axis)


def _zero_point(layer: Layer, zero_point: Array | None, otherwise: np.dtype[Any]) -> Array:
    zero_point = np.zeros((), otherwise) if zero_point is None else zero_point
    if zero_point.dtype not in (np.uint8, np.int8, np.uint16, np.int16, np.int32):
        raise layer.refusal(f"it quantises to {zero_point.dtype}", "quantise to 8 or 16 bits")
    return zero_point


def _quantize(layer: Layer, x: Array, scale: Array, zero_point: Array | None = None) -> Array:
    """y = x / scale, rounded half to even, + zero point, saturated."""
    kind = layer.get("output_dtype", 0) or onnx.TensorProto.UINT8
    zero_point = _zero_point(layer, zero_point, onnx.helper.tensor_dtype_to_np_dtype(kind))
    # In float32, as it runs: which integer is nearest can hang on the last bit.
    steps = np.rint(x.astype(np.float32) / _along_axis(layer, scale).astype(np.float32))
    limits = np.iinfo(zero_point.dtype)
    levels = steps.astype(np.float64) + _along_axis(layer, zero_point)
    return np.clip(levels, limits.min, limits.max).astype(zero_point.dtype)


def _dequantize(layer: Layer, x: Array, scale: Array, zero_point: Array | None = None) -> Array:
    """y = (x - zero point) * scale."""
    zero_point = _along_axis(layer, _zero_point(layer, zero_point, x.dtype))
    return (x.astype(np.float64) - zero_point) * _along_axis(layer, scale)


OPERATORS: Mapping[str, Operator] = {
    "Cast": Operator(_cast, _cast_reversed),
    "CastLike": Operator(_cast_like, _cast_reversed),
    "Constant": Operator(_constant),
    "ConstantOfShape": Operator(_constant_of_shape),
    "DequantizeLinear": Operator(_dequantize, as_is),
    "QuantizeLinear": Operator(_quantize, as_is),
    "Range": Operator(lambda _, start, limit, delta: np.arange(start, limit, delta)),
    "Shape": Operator(_shape),
    "Size": Operator(lambda _, x: np.array(x.size)),
}
