"""Normalisations against central differences of their definitions; LRN also as the identity."""

import numpy as np
import onnx
import pytest
from layers import assert_close, refusal, reverse
from networks import model, node, picture, run

import revgraph
from revgraph import reference

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
    return differences(lambda x: normalised(x, **attributes), x, p, eps)


def differences(function, x, p, eps=1e-6):
    x_hat = np.empty_like(x)
    for v in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[v] = eps
        difference = function(x + step) - function(x - step)
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


# ----- Layer, group and instance normalisation, and lengths -----

GAMMA, BETA = picture(6, seed=2), picture(6, seed=3)


def standardised(x, axes, epsilon):
    centred = x - x.mean(axis=axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + epsilon)


def grouped(x, groups, epsilon):
    by_group = x.reshape(len(x), groups, -1)
    return standardised(by_group, (2,), epsilon).reshape(x.shape)


PER_CHANNEL = GAMMA[:, None, None]
# id: node, the same in NumPy; x is (2, 6, 3, 2)
OTHERS = {
    "LayerNormalization": (
        node("LayerNormalization", "x two two", "y", epsilon=0.01),
        lambda x: standardised(x, (3,), 0.01) * GAMMA[:2],
    ),
    "LayerNormalization from axis 2": (
        node("LayerNormalization", "x six", "y", axis=2),
        lambda x: standardised(x, (2, 3), 1e-5) * GAMMA.reshape(3, 2),
    ),
    "LayerNormalization from axis -3": (
        node("LayerNormalization", "x one", "y", axis=-3),
        lambda x: standardised(x, (1, 2, 3), 1e-5) * GAMMA[:1],
    ),
    "GroupNormalization": (
        node("GroupNormalization", "x gamma beta", "y", num_groups=3, epsilon=0.01),
        lambda x: grouped(x, 3, 0.01) * PER_CHANNEL,
    ),
    "GroupNormalization of one group": (
        node("GroupNormalization", "x gamma beta", "y", num_groups=1),
        lambda x: grouped(x, 1, 1e-5) * PER_CHANNEL,
    ),
    "GroupNormalization of each channel": (
        node("GroupNormalization", "x gamma beta", "y", num_groups=6),
        lambda x: grouped(x, 6, 1e-5) * PER_CHANNEL,
    ),
    "InstanceNormalization": (
        node("InstanceNormalization", "x gamma beta", "y", epsilon=0.01),
        lambda x: standardised(x, (2, 3), 0.01) * PER_CHANNEL,
    ),
    "ReduceL2": (node("ReduceL2", "x axes", "y"), lambda x: np.sqrt((x**2).sum(axis=(1, 3), keepdims=True))),
    "ReduceL2 of no axis": (node("ReduceL2", "x", "y", noop_with_empty_axes=1), np.abs),
}


def other(case, batch="N"):
    layer, function = OTHERS[case]
    tensors = {"gamma": GAMMA, "beta": BETA, "two": GAMMA[:2], "six": GAMMA.reshape(3, 2), "one": GAMMA[:1]}
    source = model([layer], [batch, 6, 3, 2], tensors | {"axes": np.array([1, 3])}, opset=21, ir_version=10)
    shape = function(np.ones((1, 6, 3, 2))).shape
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [batch, *shape[1:]])
    source.graph.output[0].CopyFrom(y)
    return source, function


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("offset", [0, 100])
def test_back_propagation_through_others(case, offset):
    source, function = other(case)
    x = picture(2, 6, 3, 2) + np.float32(offset)
    p = picture(*function(x).shape, seed=1)
    expected = differences(function, x.astype(np.float64), p)
    # Far from zero float32 loses digits of what is left about the mean.
    rtol = 1e-4 if offset else 1e-5
    for variant in "identity", "desalinet-centre":
        assert_close(reverse(source, x, p, variant), expected, rtol)
    # P projections of one image
    shared = reverse(source, x[:1], p)
    assert_close(shared[:1], expected[:1], rtol)
    assert_close(shared[1:], differences(function, x[:1].astype(np.float64), p[1:]), rtol)


@pytest.mark.parametrize("opset", [17, 18, 19])
def test_axes_are_an_attribute_until_opset_18(opset):
    source = model(
        [node("InstanceNormalization", "x gamma beta", "y", epsilon=0.01)],
        ["N", 6, 3, 2],
        {"gamma": GAMMA, "beta": BETA},
        opset=opset,
    )
    assert revgraph.compile(source, variant="salinet").reversed.opset_import[0].version == opset
    x, p = picture(2, 6, 3, 2), picture(2, 6, 3, 2, seed=1)
    _, function = OTHERS["InstanceNormalization"]
    assert_close(reverse(source, x, p), differences(function, x.astype(np.float64), p))


def test_the_length_of_nothing_gives_nothing_back():
    source, _ = other("ReduceL2")
    x, p = np.zeros((1, 6, 3, 2), np.float32), np.ones((1, 1, 3, 1), np.float32)
    x[:, :, 0] = 3
    x_hat = reverse(source, x, p)
    assert_close(x_hat[:, :, :1], np.full((1, 6, 1, 2), 12**-0.5))
    assert not x_hat[:, :, 1:].any()


def test_group_normalisations_one_after_the_other():
    """ONNX infers no shape past one."""
    nodes = []
    for i in range(20):
        nodes.append(node("GroupNormalization", f"r{i} gamma beta", f"g{i}", num_groups=2))
        nodes.append(node("Relu", f"g{i}", f"r{i + 1}"))
    nodes[0].input[0] = "x"
    source = model(nodes, ["N", 6, "H", "W"], {"gamma": GAMMA, "beta": BETA}, opset=21, ir_version=10)
    end = onnx.helper.make_tensor_value_info("r20", onnx.TensorProto.FLOAT, ["N", 6, "H", "W"])
    source.graph.output[0].CopyFrom(end)
    x, p = picture(2, 6, 3, 4), picture(2, 6, 3, 4, seed=1)
    tensors = reference.forward(source, {"x": x})
    expected = reference.reverse(source, tensors, variant="desalinet", at="r20", to="x", p=p)["x"]
    assert_close(reverse(source, x, p, "desalinet"), expected)


def test_a_normalisation_over_the_batch_is_refused():
    source = model(
        [node("LayerNormalization", "x g", "y", axis=0)], [2, 2, 3], {"g": np.ones((2, 2, 3), np.float32)}
    )
    assert refusal(source) == (
        "cannot reverse node 'y' (LayerNormalization)",
        "it normalises over the batch",
        "normalise each image by itself",
    )
