"""The reference reversed, against examples computed by hand."""

import math

import numpy as np
import pytest
from equations import (
    CUBE,
    VARIANTS,
    assert_derivative,
    by_onnxruntime,
    floats,
    forward,
    layer,
    network,
    picture,
    reverse,
    signal,
)
from onnx import helper

from revgraph.errors import RevgraphError


@pytest.mark.parametrize(
    ("variant", "x_hat"),
    [
        ("identity", signal(3, -5, 7, 6)),
        ("deconvnet", signal(3, 0, 7, 6)),
        ("salinet", signal(0, -5, 0, 6)),
        ("desalinet", signal(0, 0, 0, 6)),
    ],
)
def test_relu_reverses_by_eqs_7_and_10_and_the_mask_is_strict(variant: str, x_hat: np.ndarray) -> None:
    x, p = signal(0, 2, -1, 4), signal(3, -5, 7, 6)
    np.testing.assert_array_equal(reverse(network([layer("Relu")], x), x, p, variant), x_hat)


@pytest.mark.parametrize(
    ("variant", "attributes", "x", "p", "x_hat"),
    [
        pytest.param("salinet", {"kernel_shape": [2, 2]}, picture([1, 2], [2, 2]), picture([5]),
                     picture([0, 5], [0, 0]), id="ties go to the first in row-major order"),
        pytest.param("salinet", {"kernel_shape": [3]}, signal(1, 2, 9, 2, 1), signal(5, 6, 7),
                     signal(0, 0, 18, 0, 0), id="overlapping windows add"),
        pytest.param("salinet", {"kernel_shape": [2], "pads": [1, 1]}, signal(-3, -4), signal(5, 6, 7),
                     signal(11, 7), id="padding is never a switch"),
        pytest.param("salinet", {"kernel_shape": [2], "strides": [2], "ceil_mode": 1}, signal(0, 1, 0),
                     signal(5, 6), signal(0, 5, 6), id="a rounded-up window sees what is left"),
        pytest.param("salinet-centre", {"kernel_shape": [2, 2]}, picture([1, 2], [3, 4]), picture([5]),
                     picture([5, 0], [0, 0]), id="the centre of 2x2 is top-left"),
        pytest.param("salinet-centre", {"kernel_shape": [3, 3]}, np.ones((1, 1, 3, 3)), picture([5]),
                     picture([0, 0, 0], [0, 5, 0], [0, 0, 0]), id="the centre of 3x3 is the middle"),
        pytest.param("salinet-centre", {"kernel_shape": [4], "dilations": [2]}, signal(*range(7)), signal(5),
                     signal(0, 0, 5, 0, 0, 0, 0), id="dilation moves the centre"),
        pytest.param("salinet-centre", {"kernel_shape": [2], "pads": [1, 1]}, signal(1, 2), signal(5, 6, 7),
                     signal(6, 7), id="a centre in the padding is dropped"),
        pytest.param("salinet-centre", {"kernel_shape": [3], "strides": [2], "ceil_mode": 1},
                     signal(1, 2, 3, 4), signal(5, 6),
                     signal(0, 5, 0, 6), id="an overhang keeps its centre"),
        pytest.param("salinet-centre", {"kernel_shape": [3], "strides": [3], "ceil_mode": 1},
                     signal(1, 2, 3, 4), signal(5, 6),
                     signal(0, 5, 0, 0), id="a centre outside is dropped"),
    ],
)  # fmt: skip
def test_max_pooling_reverses_by_hand(
    variant: str, attributes: dict[str, object], x: np.ndarray, p: np.ndarray, x_hat: np.ndarray
) -> None:
    np.testing.assert_array_equal(reverse(network([layer("MaxPool", **attributes)], x), x, p, variant), x_hat)


@pytest.mark.parametrize("variant", VARIANTS)
def test_lrn_reverses_by_back_propagation_in_salinet_alone(variant: str) -> None:
    x, p = np.array([[2.0, 0.0]]).reshape(1, 2, 1), np.array([[1.0, 1.0]]).reshape(1, 2, 1)
    model = network([layer("LRN", size=3, alpha=3.0, beta=1.0, bias=1.0)], x)
    # Both channels see both: D = 1 + 2^2 + 0^2 = 5, so 1/5 - 2 * 2 * (1 * 2 / 25) and 1/5.
    bp, identity = np.array([[0.2 - 8 / 25, 0.2]]).reshape(1, 2, 1), p
    np.testing.assert_allclose(reverse(model, x, p, variant), bp if variant == "salinet" else identity)
    np.testing.assert_allclose(reverse(model, x, p, variant, lrn="bp"), bp)
    np.testing.assert_allclose(reverse(model, x, p, variant, lrn="identity"), identity)


def test_lrn_of_an_even_size_reaches_one_channel_further_up() -> None:
    x = np.array([[1.0, 2.0, 3.0]]).reshape(1, 3, 1)
    model = network([layer("LRN", size=2, alpha=2.0, beta=1.0, bias=0.0)], x)
    np.testing.assert_allclose(forward(model, x).ravel(), [1 / 5, 2 / 13, 3 / 9])
    assert_derivative(model, x)


@pytest.mark.parametrize(
    ("variant", "x_hat"),
    [("salinet", [[0, 0, 0], [5, 0, 0]]), ("salinet-centre", [[0, 5, 0], [0, 0, 0]])],
)
def test_global_max_pooling_reverses_by_hand(variant: str, x_hat: list[list[float]]) -> None:
    x = np.array([[[[1.0, 2.0, 0.0], [3.0, 3.0, 1.0]]]])
    model = network([layer("GlobalMaxPool")], x)
    np.testing.assert_array_equal(reverse(model, x, np.full((1, 1, 1, 1), 5.0), variant), [[x_hat]])


@pytest.mark.parametrize("output", [1, 2])
def test_statistics_of_layer_normalization_run_forward_only(output: int) -> None:
    names = ["n", "m", "i"]
    node = helper.make_node("LayerNormalization", ["x", "s"], names, axis=2, epsilon=0.5)
    model = network([node, layer("Identity", names[output])], CUBE, {"s": floats(4)})
    # float32 rounding of one operator
    np.testing.assert_allclose(forward(model, CUBE), by_onnxruntime(model, CUBE), rtol=1e-5, atol=1e-6)
    with pytest.raises(RevgraphError, match=f"its output '{names[output]}' is used"):
        reverse(model, CUBE, forward(model, CUBE), "salinet")


@pytest.mark.parametrize("p", [1, 2])
def test_a_row_of_zeros_stays_and_sends_back_nothing(p: int) -> None:
    x = np.array([[0.0, 0.0], [0.0, -2.0]])
    model = network([layer("LpNormalization", p=p)], x)
    np.testing.assert_array_equal(forward(model, x), [[0, 0], [0, -1]])
    np.testing.assert_array_equal(reverse(model, x, np.ones((2, 2)), "salinet"), [[0, 0], [0.5, 0]])


def test_mean_variance_normalization_of_a_flat_picture_by_hand() -> None:
    x = np.ones((1, 1, 1, 2))
    model = network([layer("MeanVarianceNormalization")], x)
    np.testing.assert_array_equal(forward(model, x), 0 * x)
    np.testing.assert_allclose(reverse(model, x, picture([3, 1]), "salinet"), picture([1e9, -1e9]))


EXTREMA = [
    ("ReduceMax", {"axes": [2, 3]}, [[0, 0, 0], [5, 0, 0]], [[0, 5, 0], [0, 0, 0]]),
    ("ReduceMax", {"axes": [-1, 1, 2], "keepdims": 0}, [[0, 0, 0], [5, 0, 0]], [[0, 5, 0], [0, 0, 0]]),
    ("ReduceMax", {"axes": [3]}, [[0, 5, 0], [6, 0, 0]], [[0, 5, 0], [0, 6, 0]]),
    ("ReduceMax", {"axes": [2], "keepdims": 0}, [[0, 0, 7], [5, 6, 0]], [[5, 6, 7], [0, 0, 0]]),
    ("ReduceMin", {"axes": [2, 3]}, [[0, 0, 5], [0, 0, 0]], [[0, 5, 0], [0, 0, 0]]),
    ("ReduceMin", {"axes": [2], "keepdims": 0}, [[5, 6, 7], [0, 0, 0]], [[5, 6, 7], [0, 0, 0]]),
]


@pytest.mark.parametrize(("op_type", "attributes", "first", "middle"), EXTREMA)
def test_extrema_along_axes_reverse_as_one_window_by_hand(
    op_type: str, attributes: dict[str, object], first: list[list[int]], middle: list[list[int]]
) -> None:
    x = picture([1, 2, 0], [3, 3, 0])
    model = network([layer(op_type, **attributes)], x)
    shape = forward(model, x).shape
    p = np.arange(5.0, 5 + math.prod(shape)).reshape(shape)
    for variant in VARIANTS:
        expected = middle if variant.endswith("-centre") else first
        np.testing.assert_array_equal(reverse(model, x, p, variant), [[expected]])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_maximum_over_the_plane_is_global_max_pooling(variant: str) -> None:
    x = np.round(CUBE.astype(np.float64))  # ties
    p = np.random.default_rng(8).standard_normal((2, 6, 1, 1))
    by = [
        reverse(network([node], x), x, p, variant)
        for node in (layer("ReduceMax", axes=[3, 2]), layer("GlobalMaxPool"))
    ]
    np.testing.assert_array_equal(*by)


def test_the_norm_of_nothing_sends_back_nothing() -> None:
    x = np.array([[0.0, 0.0], [3.0, 4.0]])
    model = network([layer("ReduceL2", axes=[1])], x)
    np.testing.assert_allclose(reverse(model, x, np.ones((2, 1)), "salinet"), [[0, 0], [0.6, 0.8]])
