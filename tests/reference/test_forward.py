"""The reference against onnxruntime, forward."""

import numpy as np
import onnx
import pytest
from equations import (
    OPERATORS,
    RANKED,
    WINDOWS,
    Random,
    by_onnxruntime,
    floats,
    forward,
    layer,
    network,
    operator_id,
    random_pad,
    random_transposed_window,
    random_window,
)
from onnx import helper


@pytest.mark.parametrize(("op_type", "rank", "seed"), WINDOWS)
def test_windows_agree_with_onnxruntime(op_type: str, rank: int, seed: int) -> None:
    model, x = random_window(op_type, rank, seed)
    y = by_onnxruntime(model, x)
    # float32 sums of at most a few hundred products of unit variance
    np.testing.assert_allclose(forward(model, x), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rank", "seed"), RANKED)
@pytest.mark.parametrize("random", [random_transposed_window, random_pad])
def test_transposed_windows_and_pads_agree_with_onnxruntime(random: Random, rank: int, seed: int) -> None:
    model, x = random(rank, seed)
    # as above
    np.testing.assert_allclose(forward(model, x), by_onnxruntime(model, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("opset", "x", "node", "weights"), OPERATORS, ids=operator_id)
def test_operators_agree_with_onnxruntime(
    opset: int, x: np.ndarray, node: onnx.NodeProto, weights: dict[str, np.ndarray]
) -> None:
    model = network([node], x, weights, opset)
    want, got = by_onnxruntime(model, x), forward(model, x)
    assert got.dtype == (np.float64 if want.dtype == np.float32 else want.dtype)
    # float32 rounding of one operator
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attribute", [{"value_float": 0.5}, {"value_floats": [0.5]}, {"value_int": 3}])
def test_constants_are_read(attribute: dict[str, object]) -> None:
    x = floats(2)
    model = network([helper.make_node("Constant", [], ["y"], **attribute), layer("Identity", output="z")], x)
    np.testing.assert_array_equal(forward(model, x), by_onnxruntime(model, x))
