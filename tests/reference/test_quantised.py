"""Quantisation in the reference."""

import numpy as np
import pytest
from equations import CUBE, by_onnxruntime, floats, forward, layer, network, reverse

SCALES = floats(6) / 50

QUANTISED = [
    (10, {"s": 0.017, "z": np.uint8(120)}, {}),
    (13, {"s": 0.017, "z": np.int8(3)}, {}),
    (13, {"s": 0.01}, {}),
    (13, {"s": SCALES, "z": np.arange(6, dtype=np.int8)}, {}),
    (13, {"s": SCALES[:4], "z": np.arange(4, dtype=np.uint8)}, {"axis": -1}),
    (21, {"s": 1e-4, "z": np.int16(-5)}, {}),
    (21, {"s": floats(2, 3, 3, 4) / 50, "z": np.ones((2, 3, 3, 4), np.int8)}, {"axis": 1, "block_size": 2}),
    (25, {"s": 0.03, "z": np.int8(0)}, {}),
]


@pytest.mark.parametrize(("opset", "values", "attributes"), QUANTISED)
def test_quantisation_is_exact_and_passes_straight_through(
    opset: int, values: dict[str, object], attributes: dict[str, int]
) -> None:
    weights = {name: np.asarray(v, np.float32 if name == "s" else None) for name, v in values.items()}
    quantise = layer("QuantizeLinear", "x", *weights, output="q", **attributes)
    back = layer("DequantizeLinear", "q", *weights, **attributes)
    levels = network([quantise, layer("Identity", "q")], CUBE, weights, opset)
    np.testing.assert_array_equal(forward(levels, CUBE), by_onnxruntime(levels, CUBE))
    model = network([quantise, back], CUBE, weights, opset)
    # float32 rounding of one product
    np.testing.assert_allclose(forward(model, CUBE), by_onnxruntime(model, CUBE), rtol=1e-6)
    p = np.random.default_rng(0).standard_normal(CUBE.shape)
    np.testing.assert_array_equal(reverse(model, CUBE, p, "salinet"), p)


def test_quantisation_rounds_half_to_even() -> None:
    x = np.array([[0.5, 1.5, 2.5, -0.5, 300.0, -300.0]], np.float32)
    model = network([layer("QuantizeLinear", *"xs")], x, {"s": np.array(1, np.float32)})
    np.testing.assert_array_equal(forward(model, x), [[0, 2, 2, 0, 255, 0]])
