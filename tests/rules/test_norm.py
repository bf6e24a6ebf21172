"""Local response normalisation against central differences of its definition, and as the identity."""

import numpy as np
import pytest
from layers import assert_close, reverse
from networks import model, node, picture, run

import revgraph

NORMS = {
    "size 3": {"size": 3, "alpha": 2.0, "beta": 0.75, "bias": 1.0},
    "size 5": {"size": 5, "alpha": 3.0, "beta": 0.5, "bias": 2.0},
    "wider than the channels": {"size": 15, "alpha": 1.0, "beta": 1.5, "bias": 1.0},
    "size 1": {"size": 1, "alpha": 1.0},
    "AlexNet's": {"size": 5, "alpha": 1e-4, "beta": 0.75},
}


def normalised(x, size, alpha=1e-4, beta=0.75, bias=1.0):
    """y_c = x_c / (bias + alpha / size * sum of x_d^2 over the size channels d about c)^beta, in float64."""
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        near = x[:, max(c - (size - 1) // 2, 0) : c + size // 2 + 1]
        y[:, c] = x[:, c] / (bias + alpha / size * (near**2).sum(axis=1)) ** beta
    return y


def derivative(x, p, attributes, eps=1e-6):
    """d <p, y> / dx by central differences, exact to about 1e-9 of the largest."""
    x_hat = np.empty_like(x)
    for v in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[v] = eps
        difference = normalised(x + step, **attributes) - normalised(x - step, **attributes)
        x_hat[v] = (p * difference).sum() / (2 * eps)
    return x_hat


@pytest.mark.parametrize("case", NORMS)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_back_propagation_through_lrn(case, scale):
    attributes = NORMS[case]
    net = model([node("LRN", "x", "y", **attributes)], ["N", 7, 2, 3])
    x, p = picture(2, 7, 2, 3) * np.float32(scale), picture(2, 7, 2, 3, seed=1)
    # onnxruntime slides its sum of squares along the channels, and loses digits where they are large.
    assert_close(run(net, x=x)["y"], normalised(x.astype(np.float64), **attributes), rtol=1e-3)
    expected = derivative(x.astype(np.float64), p, attributes)
    assert_close(reverse(net, x, p, "salinet"), expected)
    assert_close(reverse(net, x, p, "desalinet-centre", lrn="bp"), expected)


@pytest.mark.parametrize("variant", set(revgraph.VARIANTS) - {"salinet"})
@pytest.mark.parametrize("size", [3, 5])
def test_identity_wherever_nothing_else_is_said(variant, size):
    net = model([node("LRN", "x", "y", size=size, alpha=2.0)], ["N", 7, 2, 3])
    x, p = picture(2, 7, 2, 3), picture(2, 7, 2, 3, seed=1)
    np.testing.assert_array_equal(reverse(net, x, p, variant), p)
    np.testing.assert_array_equal(reverse(net, x, p, "salinet", lrn="identity"), p)


def test_the_bottleneck_is_x_itself():
    net = model([node("LRN", "x", "y", size=3)], ["N", 7, 2, 3])
    trace = revgraph.Session(revgraph.compile(net, variant="salinet"), threads=1).forward(picture(2, 7, 2, 3))
    (tap,) = trace.taps.items()
    assert tap[0] == "y/value"
    np.testing.assert_array_equal(tap[1].numpy(), picture(2, 7, 2, 3))
