"""What a model says of its inputs and outputs."""

from typing import Any

import numpy as np
import onnx

Shape = tuple[int | str | None, ...]
"""A size for each axis; a name, or None, where it is free."""


def shape_of(value: onnx.ValueInfoProto) -> Shape:
    """The shape that is declared of a tensor."""
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    )


def dtype_of(value: onnx.ValueInfoProto) -> np.dtype[Any]:
    """The element type that is declared of a tensor."""
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def in_numbers(shape: Shape) -> tuple[int, ...]:
    """The shape with -1 where it is free."""
    return tuple(n if isinstance(n, int) else -1 for n in shape)
