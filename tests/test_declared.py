"""What a model says of its inputs and outputs."""

import ml_dtypes
import numpy as np
import onnx

from revgraph.declared import dtype_of, in_numbers, shape_of


def test_sizes_names_and_what_has_neither() -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", None, 0, 224])
    assert shape_of(value) == ("N", None, 0, 224)
    assert in_numbers(shape_of(value)) == (-1, -1, 0, 224)


def test_element_types() -> None:
    for kind, dtype in (
        (onnx.TensorProto.INT64, np.int64),
        (onnx.TensorProto.FLOAT16, np.float16),
        (onnx.TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    ):
        assert dtype_of(onnx.helper.make_tensor_value_info("x", kind, [1])) == dtype
