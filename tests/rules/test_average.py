"""Average pooling against its own matrix, found column by column: Eq. (6)."""

import numpy as np
import pytest
from layers import assert_close, assert_transposed, refusal, reverse
from networks import model, node, picture, run

POOLS = {
    "2x2/2": ((4, 6), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "a remainder": ((5, 7), {"kernel_shape": [2, 2], "strides": [2, 3]}),
    "overlapping": ((6, 7), {"kernel_shape": [3, 3], "strides": [2, 1]}),
    "padded": ((5, 6), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "padded unevenly": ((5, 6), {"kernel_shape": [3, 2], "pads": [2, 0, 1, 1]}),
    "dilated": ((6, 6), {"kernel_shape": [2, 3], "dilations": [3, 2], "pads": [1, 0, 0, 2]}),
    "1-D": ((7,), {"kernel_shape": [3], "strides": [2], "pads": [1, 0]}),
    "3-D": ((3, 4, 4), {"kernel_shape": [2, 2, 3], "strides": [1, 2, 1], "pads": [1, 1, 1, 0, 0, 1]}),
}


@pytest.mark.parametrize("case", POOLS)
@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("ceil", [0, 1])
def test_average_pooling(case, include, ceil):
    size, attributes = POOLS[case]
    attributes = attributes | {"count_include_pad": include, "ceil_mode": ceil}
    # opset 19: the first whose average pooling knows dilations
    net = model([node("AveragePool", "x", "y", **attributes)], ["N", 2, *size], opset=19)
    assert_transposed(net, 2, *size)


@pytest.mark.parametrize("include", [0, 1])
def test_no_window_starts_in_the_padding_at_the_end(include):
    """Rounding up, ONNX before opset 22 would infer one more window than onnxruntime has."""
    attributes = {
        "kernel_shape": [2, 2],
        "strides": [2, 2],
        "pads": [0, 1, 1, 1],
        "count_include_pad": include,
    }
    net = model([node("AveragePool", "x", "y", ceil_mode=1, **attributes)], ["N", 2, 4, 4])
    for dim, name in zip(net.graph.output[0].type.tensor_type.shape.dim[2:], "HW", strict=True):
        dim.dim_param = name
    assert run(net, x=picture(1, 2, 4, 4))["y"].shape == (1, 2, 2, 3)
    assert_transposed(net, 2, 4, 4)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("include", [0, 1])
def test_auto_pad(mode, include):
    attributes = {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": mode, "count_include_pad": include}
    assert_transposed(model([node("AveragePool", "x", "y", **attributes)], ["N", 2, 6, 5]), 2, 6, 5)


@pytest.mark.parametrize("size", [(5,), (3, 4), (2, 3, 2)])
def test_global_average_pooling(size):
    assert_transposed(model([node("GlobalAveragePool", "x", "y")], ["N", 3, *size]), 3, *size)


def test_sizes_that_only_the_run_knows():
    net = model([node("GlobalAveragePool", "x", "y")], ["N", 2, "H", "W"])
    p = picture(1, 2, 1, 1)
    for size in (4, 5), (1, 3):
        assert_close(reverse(net, picture(1, 2, *size), p), np.broadcast_to(p / np.prod(size), (1, 2, *size)))


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
def test_kernels_of_absurdly_many_numbers_are_refused(op):
    """Two channels of 2^26."""
    pool = node(op, "x", "y", kernel_shape=[2**13, 2**13])
    assert refusal(model([pool], ["N", 2, 2**13, 2**13])) == (
        f"cannot reverse node 'y' ({op})",
        "its kernel [8192, 8192] is absurdly large",
        "check the model",
    )


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2"])
def test_what_reduces_the_batch_is_refused(op):
    """All axes, where none are named; a batch of one hides it."""
    assert refusal(model([node(op, "x", "y")], [1, 3, 4])) == (
        f"cannot reverse node 'y' ({op})",
        "it reduces the batch",
        "keep the batch, or choose --at before this node",
    )
