"""Activations whose attributes are not the default ones: x_hat = y_hat times the derivative, Eq. (5)."""

import math

import numpy as np
import pytest
from layers import assert_close, reverse
from networks import model, node

import revgraph
from revgraph.graph import Builder, gs, producer
from revgraph.rules import activation

X = np.linspace(-4, 4, 33, dtype=np.float32).reshape(1, 3, 11)
P = np.random.default_rng(1).standard_normal(X.shape).astype(np.float32)


def normal(x):
    return np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi), (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def gelu_tanh_slope(x):
    """Of x (1 + tanh(u)) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    root = math.sqrt(2 / math.pi)
    t, u_slope = np.tanh(root * (x + 0.044715 * x**3)), root * (1 + 3 * 0.044715 * x**2)
    return (1 + t) / 2 + x / 2 * (1 - t**2) * u_slope


# id: operator, attributes, derivative for x from -4 to 4 in steps of a quarter, zero among them
SLOPES = {
    "LeakyRelu": ("LeakyRelu", {"alpha": 0.3}, lambda x: np.where(x > 0, 1, 0.3)),
    "Elu": ("Elu", {"alpha": 0.5}, lambda x: np.where(x > 0, 1, 0.5 * np.exp(x))),
    "Selu": ("Selu", {"alpha": 0.7, "gamma": 1.3}, lambda x: 1.3 * np.where(x > 0, 1, 0.7 * np.exp(x))),
    "Celu": ("Celu", {"alpha": 2.0}, lambda x: np.where(x > 0, 1, np.exp(x / 2))),
    "ThresholdedRelu": ("ThresholdedRelu", {"alpha": 0.5}, lambda x: np.where(x > 0.5, 1, 0)),
    "HardSigmoid": (
        "HardSigmoid", {"alpha": 0.25, "beta": 0.25}, lambda x: np.where((x > -1) & (x < 3), 0.25, 0)
    ),
    "HardSwish": ("HardSwish", {}, lambda x: np.select([x <= -3, x >= 3], [0, 1], x / 3 + 1 / 2)),
    "Gelu": ("Gelu", {}, lambda x: normal(x)[1] + x * normal(x)[0]),
    "Gelu by tanh": ("Gelu", {"approximate": "tanh"}, gelu_tanh_slope),
}  # fmt: skip


@pytest.mark.parametrize("case", SLOPES)
def test_the_derivative(case):
    op, attributes, slope = SLOPES[case]
    net = model([node(op, "x", "y", **attributes)], ["N", 3, 11], opset=20, ir_version=9)
    assert_close(reverse(net, X, P, "salinet", at="y"), P * slope(X.astype(np.float64)))


@pytest.mark.parametrize("axis", [1, -1])
def test_softmax(axis):
    """x_hat = J^T y_hat for J = diag(y) - y y^T along the axis."""
    net = model([node("Softmax", "x", "y", axis=axis)], ["N", 3, 11])
    y = np.exp(X.astype(np.float64)) / np.exp(X.astype(np.float64)).sum(axis, keepdims=True)
    assert_close(reverse(net, X, P, at="y"), y * P - y * (y * P).sum(axis, keepdims=True))


POSITIVE = {
    "Exp": np.exp,
    "Log": lambda x: 1 / x,
    "Sqrt": lambda x: 0.5 / np.sqrt(x),
    "Reciprocal": lambda x: -1 / x**2,
}


@pytest.mark.parametrize("op", POSITIVE)
def test_functions_of_positive_numbers(op):
    x = np.abs(X) + 0.5
    x_hat = reverse(model([node(op, "x", "y")], ["N", 3, 11]), x, P, at="y")
    assert_close(x_hat, P * POSITIVE[op](x.astype(np.float64)))


@pytest.mark.parametrize(
    ("inputs", "inside"),
    [
        ("x low high", lambda x: (x > -0.5) & (x < 0.75)),
        ("x low", lambda x: x > -0.5),
        ("x  high", lambda x: x < 0.75),
        ("x low ", lambda x: x > -0.5),
    ],
)
def test_clip_is_shut_at_its_bounds(inputs, inside):
    """r = [lo < x < hi], strictly."""
    bounds = {"low": np.float32(-0.5), "high": np.float32(0.75)}
    net = model([node("Clip", inputs, "y")], ["N", 3, 11], bounds)
    np.testing.assert_array_equal(reverse(net, X, P), P * inside(X))


@pytest.mark.parametrize("op", ["LeakyRelu", "Celu", "Gelu", "HardSwish", "ThresholdedRelu"])
def test_rectifiers_take_the_choice_of_the_variant(op):
    net = model([node(op, "x", "y")], ["N", 3, 11], opset=20, ir_version=9)
    by_slope = reverse(net, X, P, "salinet", at="y")
    np.testing.assert_array_equal(reverse(net, X, P, "identity", at="y"), P)
    np.testing.assert_array_equal(reverse(net, X, P, "deconvnet", at="y"), np.maximum(P, 0))
    np.testing.assert_array_equal(reverse(net, X, P, "desalinet", at="y"), np.maximum(by_slope, 0))


@pytest.mark.parametrize(
    ("nodes", "taps"),
    [
        ([node("LeakyRelu", "x", "y")], ("y/slope",)),
        ([node("ThresholdedRelu", "x", "y")], ("y/mask",)),
        ([node("Sigmoid", "x", "y")], ("y/slope",)),
        ([node("Clip", "x", "y")], ()),
    ],
)
def test_what_crosses(nodes, taps):
    assert revgraph.compile(model(nodes, ["N", 3, 11]), variant="salinet", at="y").taps == taps


# ----- How steep -----


def bound(op, attributes, *parameters):
    """What the middle form says that no slope exceeds."""
    x, y = (gs.Variable(name, np.dtype(np.float32), ["N", 3, 11]) for name in "xy")
    layer = gs.Node(
        op, "y", attributes, [x, *(gs.Constant(f"k{i}", k) for i, k in enumerate(parameters))], [y]
    )
    fwd, rev = (Builder(gs.Graph(), set()) for _ in range(2))
    (x_hat,) = activation.slope.reverse(rev, layer, y, activation.slope.bottleneck(fwd, layer))
    return producer(x_hat).attrs["most"]


@pytest.mark.parametrize(
    ("op", "attributes", "steepest"),
    [
        ("LeakyRelu", {"alpha": -8.0}, 8),
        ("Elu", {"alpha": 5.0}, 5),
        ("Selu", {}, 1.6733 * 1.0508),
        ("Selu", {"alpha": 4.0, "gamma": 3.0}, 12),
        ("Selu", {"alpha": 0.5, "gamma": 7.0}, 7),
        ("HardSigmoid", {"alpha": 6.0}, 6),
        ("Gelu", {}, 1.13),
        ("Sigmoid", {}, 0.25),
    ],
)
def test_no_slope_is_steeper_than_what_half_precision_is_scaled_for(op, attributes, steepest):
    assert steepest <= bound(op, attributes) <= max(2 * steepest, 2 * 1.68)


def test_parameters_make_slopes_steep():
    assert bound("PRelu", {}, np.array([[0.1], [-9.0], [2.0]], np.float32)) == 18


@pytest.mark.parametrize("op", ["Exp", "Log", "Pow", "Reciprocal", "Sqrt"])
def test_slopes_without_bound(op):
    assert bound(op, {}, *([np.array(3, np.float32)] if op == "Pow" else [])) == math.inf
