"""The four reversals of ReLU, from Eqs. (7) and (10), at every pair of signs and at exact zeros."""

import numpy as np
import pytest
from layers import assert_close, reverse, weights
from networks import model, node, picture

import revgraph

TINY = np.float32(1e-40)  # below the smallest normal number, and yet x > 0
X, Y_HAT = np.meshgrid(
    np.array([-2, -TINY, -0.0, 0, TINY, 0.5], np.float32), np.array([-3, -0.0, 0, 1.5], np.float32)
)
NET = model([node("Relu", "x", "y")], ["N", *X.shape])

REVERSALS = {
    "identity": lambda x, y_hat: y_hat,
    "deconvnet": lambda x, y_hat: np.maximum(y_hat, 0),
    "salinet": lambda x, y_hat: y_hat * (x > 0),
    "desalinet": lambda x, y_hat: np.maximum(y_hat, 0) * (x > 0),
}


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
def test_a_single_relu(variant):
    expected = REVERSALS[variant.removesuffix("-centre")](X, Y_HAT)
    np.testing.assert_array_equal(reverse(NET, X[None], Y_HAT[None], variant)[0], expected)


@pytest.mark.parametrize("relu", REVERSALS)
def test_between_convolutions_of_one_pixel(relu):
    """x_hat = W1^T R(W2^T p), R the reversal at x = W1 x0 + b."""
    w1, w2, b = weights(5, 3), weights(4, 5), np.array([0, 0.5, -0.5, 1, -1], np.float32)
    nodes = [node("Conv", "x w1 b", "c"), node("Relu", "c", "r"), node("Conv", "r w2", "y")]
    tensors = {"w1": w1[:, :, None], "w2": w2[:, :, None], "b": b}
    x0, p = picture(2, 3, 7), picture(2, 4, 7, seed=1)
    x = np.einsum("cd,ndi->nci", w1, x0) + b[:, None]
    y_hat = np.einsum("cd,nci->ndi", w2, p)
    expected = np.einsum("cd,nci->ndi", w1, REVERSALS[relu](x, y_hat))
    assert_close(reverse(model(nodes, ["N", 3, 7], tensors), x0, p, relu), expected)


@pytest.mark.parametrize(
    ("variant", "taps"),
    [("identity", ()), ("deconvnet", ()), ("salinet", ("y/mask",)), ("desalinet", ("y/mask",))],
)
def test_the_mask_is_the_bottleneck(variant, taps):
    pair = revgraph.compile(NET, variant=variant)
    assert pair.taps == taps
    trace = revgraph.Session(pair, threads=1).forward(X[None])
    for tap in trace.taps.values():
        assert tap.numpy().dtype == bool
        np.testing.assert_array_equal(tap.numpy()[0], X > 0)
