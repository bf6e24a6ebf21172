"""Eq. (10) and what follows from it, on random networks: polarity, support, and how x_hat depends on p."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import assert_close
from networks import model, node, run

import revgraph

CHANNELS, SIZE, PADS = 3, 6, [1, 1, 1, 1]

relu_net = settings(max_examples=25, derandomize=True, deadline=None, database=None)
kinds = st.lists(st.sampled_from(["conv", "relu", "max", "average", "residual", "concat"]), max_size=5)
seeds = st.integers(0, 2**32 - 1)


def network(kinds, rng):
    """A network of layers that keep the shape, from x through a first Conv and Relu to y.

    Small integer weights make exact zeros before a Relu, and equal maxima, common.
    """
    nodes, tensors, last = [], {}, "x"
    for i, kind in enumerate(["conv", "relu", *kinds]):
        name = f"{kind}{i}"
        if kind == "conv":
            tensors[f"w{i}"] = rng.integers(-1, 2, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
            tensors[f"b{i}"] = rng.integers(-1, 2, CHANNELS).astype(np.float32)
            nodes.append(node("Conv", f"{last} w{i} b{i}", name, pads=PADS))
        elif kind == "relu":
            nodes.append(node("Relu", last, name))
        elif kind == "residual":
            nodes += [node("Relu", last, f"{name}/relu"), node("Add", f"{last} {name}/relu", name)]
        elif kind == "concat":
            tensors[f"m{i}"] = rng.integers(-1, 2, (CHANNELS, 2 * CHANNELS, 1, 1)).astype(np.float32)
            nodes += [
                node("Relu", last, f"{name}/relu"),
                node("Concat", f"{last} {name}/relu", f"{name}/joined", axis=1),
                node("Conv", f"{name}/joined m{i}", name),
            ]
        else:
            op = {"max": "MaxPool", "average": "AveragePool"}[kind]
            nodes.append(node(op, last, name, kernel_shape=[3, 3], pads=PADS))
        last = name
    nodes.append(node("Identity", last, "y"))
    relus = [layer.name for layer in nodes if layer.op_type == "Relu"]
    return model(nodes, ["N", CHANNELS, SIZE, SIZE], tensors, outputs=["y", *relus]), relus


def arrays(rng, n):
    """x of few integers, and p of normal numbers."""
    shape = (n, CHANNELS, SIZE, SIZE)
    return rng.integers(-1, 2, shape).astype(np.float32), rng.standard_normal(shape).astype(np.float32)


def at_relus(net, relus, variant, x, p):
    """(y, x_hat) at every Relu that x_hat comes through, x_hat read out of the compiled reversed graph."""
    pair = revgraph.compile(net, variant=variant, at="y")
    trace = revgraph.Session(pair, threads=1).forward(x)
    whole = onnx.ModelProto()
    whole.CopyFrom(pair.reversed)
    order = [name for layer in whole.graph.node for name in layer.output]
    written = {relu: [name for name in order if name.startswith(f"{relu}/")][-1] for relu in relus}
    known = {output.name for output in whole.graph.output}
    extra = sorted(set(written.values()) - known)
    whole.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in extra)
    values = run(whole, p=p, **{name: tap.numpy() for name, tap in trace.taps.items()})
    return [(trace.outputs[relu], values[name]) for relu, name in written.items()]


@given(kinds=kinds, seed=seeds)
@relu_net
@pytest.mark.parametrize("variant", ["deconvnet", "desalinet", "deconvnet-centre", "desalinet-centre"])
def test_polarity_is_kept(variant, kinds, seed):
    """Rectified, x_hat has the sign of y, which no Relu leaves negative: y * x_hat >= 0."""
    rng = np.random.default_rng(seed)
    net, relus = network(kinds, rng)
    for y, x_hat in at_relus(net, relus, variant, *arrays(rng, 2)):
        assert y.shape == x_hat.shape
        assert (x_hat >= 0).all()
        assert (y * x_hat >= 0).all()


@given(kinds=kinds, seed=seeds)
@relu_net
@pytest.mark.parametrize("variant", ["salinet", "desalinet", "salinet-centre", "desalinet-centre"])
def test_support_is_kept(variant, kinds, seed):
    """Masked, x_hat is zero wherever y is."""
    rng = np.random.default_rng(seed)
    net, relus = network(kinds, rng)
    for y, x_hat in at_relus(net, relus, variant, *arrays(rng, 2)):
        assert (x_hat[y == 0] == 0).all()


def reversal(kinds, seed, variant, n=1):
    """p -> x_hat at one x, and a few p."""
    rng = np.random.default_rng(seed)
    net, _ = network(kinds, rng)
    session = revgraph.Session(revgraph.compile(net, variant=variant, at="y"), threads=1)
    trace = session.forward(arrays(rng, 1)[0])
    return lambda p: session.reverse(trace, p), [arrays(rng, 1)[1] for _ in range(n)]


@given(kinds=kinds, seed=seeds, a=st.floats(-4, 4, width=32), b=st.floats(-4, 4, width=32))
@relu_net
@pytest.mark.parametrize("variant", ["identity", "salinet", "identity-centre", "salinet-centre"])
def test_what_does_not_rectify_is_linear_in_p(variant, kinds, seed, a, b):
    x_hat, (p, q) = reversal(kinds, seed, variant, n=2)
    a, b = np.float32(a), np.float32(b)
    terms = a * x_hat(p), b * x_hat(q)
    # Terms may cancel, so the float32 error is of their size and not of the sum's.
    size = max(np.abs(term).max() for term in terms)
    np.testing.assert_allclose(x_hat(a * p + b * q), terms[0] + terms[1], rtol=0, atol=2e-5 * size + 1e-30)


@given(kinds=kinds, seed=seeds, power=st.integers(-8, 8), factor=st.floats(0.125, 8, width=32))
@relu_net
@pytest.mark.parametrize("variant", revgraph.VARIANTS)
def test_all_are_positively_homogeneous(variant, kinds, seed, power, factor):
    x_hat, (p,) = reversal(kinds, seed, variant)
    expected = x_hat(p)
    # Powers of two scale float32 exactly.
    np.testing.assert_array_equal(x_hat(np.float32(2.0**power) * p), np.float32(2.0**power) * expected)
    assert_close(x_hat(np.float32(factor) * p), np.float32(factor) * expected)


@pytest.mark.parametrize("variant", ["deconvnet", "desalinet"])
def test_what_rectifies_is_not_linear(variant):
    x_hat, (p,) = reversal(["conv", "relu", "conv"], 3, variant)
    assert not np.allclose(x_hat(-p), -x_hat(p))
