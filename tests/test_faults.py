"""Seeded faults: what the comparison with the reference would let through, were it too weak.

The network is of small integers, so that float32 is exact, agreement is equality, and exact zeros before a
ReLU and equal maxima within a window abound.
"""

import dataclasses

import numpy as np
import pytest
from networks import model, node

import revgraph
from revgraph import compiler, reference, variants
from revgraph import reverse as walk
from revgraph.graph import Builder, gs, producer
from revgraph.lower import switches
from revgraph.rules import affine, maxpool, relu
from revgraph.rules.rule import Rule

RNG = np.random.default_rng(12)
PADS = [1, 1, 1, 1]


def integers(*shape):
    return RNG.integers(-1, 2, shape).astype(np.float32)


WEIGHTS = {"w1": integers(4, 3, 3, 3), "w2": integers(4, 4, 3, 3), "w3": integers(4, 4, 3, 3)} | {
    "w4": integers(16, 16),
    "b1": integers(4),
    "b4": integers(16),
}
X, P = integers(2, 3, 9, 9), integers(2, 16)


def network():
    """conv-ReLU-conv-ReLU, overlapping windows, a residual branch, disjoint windows, fully connected."""
    nodes = [
        node("Conv", "x w1 b1", "conv1", pads=PADS),
        node("Relu", "conv1", "relu1"),
        node("Conv", "relu1 w2", "conv2", pads=PADS),
        node("Relu", "conv2", "relu2"),
        node("MaxPool", "relu2", "pool1", kernel_shape=[3, 3], strides=[2, 2]),
        node("Conv", "pool1 w3", "conv3", pads=PADS),
        node("Add", "pool1 conv3", "sum"),
        node("Relu", "sum", "relu3"),
        node("MaxPool", "relu3", "pool2", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "pool2", "flat"),
        node("Gemm", "flat w4 b4", "y", transB=1),
    ]
    return model(nodes, ["N", 3, 9, 9], WEIGHTS)


def agrees(compiled, source, x):
    """Whether x_hat equals that of the paper's equations in float64, number by number."""
    session = revgraph.Session(compiled, threads=1)
    values = reference.forward(source, {"x": x})
    expected = reference.reverse(source, values, variant=compiled.variant, at="y", to="x", p=P)["x"]
    assert 0 < np.abs(expected).max() < 2**24
    return np.array_equal(session.reverse(session.forward(x), P), expected)


def compile_and_compare(variant):
    source = network()
    return agrees(revgraph.compile(source, variant=variant), source, X)


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
def test_the_compiler_as_it_is_agrees(variant):
    assert compile_and_compare(variant)


def windows(plane, kernel, stride):
    last = plane.shape[-1] - kernel + 1
    return [
        plane[..., i : i + kernel, j : j + kernel]
        for i in range(0, last, stride)
        for j in range(0, last, stride)
    ]


def test_the_network_has_what_the_faults_need():
    values = reference.forward(network(), {"x": X})
    for before_relu in ("conv1", "conv2"):
        assert (values[before_relu] == 0).mean() > 0.02
    positive_ties = 0
    for pooled, kernel in ("relu2", 3), ("relu3", 2):
        for window in windows(values[pooled], kernel, 2):
            largest = window.max(axis=(2, 3), keepdims=True)
            positive_ties += ((window == largest).sum(axis=(2, 3), keepdims=True) > 1)[largest > 0].sum()
    assert positive_ties > 5


# ----- Faults in the rules -----


def set_rule(monkeypatch, variant, operator, rule):
    monkeypatch.setitem(variants.VARIANTS, variant, {**variants.VARIANTS[variant], operator: rule})


@pytest.mark.parametrize(
    ("variant", "operator", "rule"),
    [
        pytest.param("salinet", "Relu", relu.identity, id="mask dropped"),
        pytest.param("desalinet", "Relu", relu.rectify, id="mask dropped, rectified"),
        pytest.param("desalinet", "Relu", relu.mask, id="rectification dropped"),
        pytest.param("deconvnet", "Relu", relu.mask, id="mask in place of rectification"),
        pytest.param("deconvnet", "MaxPool", maxpool.centre, id="centre in place of switches"),
        pytest.param("salinet", "MaxPool", maxpool.centre, id="centre in place of switches, masked"),
        pytest.param("salinet-centre", "MaxPool", maxpool.switches, id="switches in place of the centre"),
    ],
)
def test_another_rule_is_noticed(monkeypatch, variant, operator, rule):
    set_rule(monkeypatch, variant, operator, rule)
    assert not compile_and_compare(variant)


def test_a_bias_that_is_kept_is_noticed(monkeypatch):
    def biased(rev, conv, y_hat, r):
        if len(conv.inputs) > 2:
            bias = conv.inputs[2].values.reshape(-1, 1, 1)
            y_hat = rev.emit("Add", y_hat, bias, dtype=y_hat.dtype, shape=y_hat.shape)
        return affine.conv.reverse(rev, conv, y_hat, r)

    monkeypatch.setitem(variants.SHARED, "Conv", Rule("biased", biased, affine.conv.bottleneck))
    assert not compile_and_compare("salinet")


@pytest.mark.parametrize("variant", ["identity", "desalinet-centre"])
def test_a_contribution_lost_at_a_fan_out_is_noticed(monkeypatch, variant):
    def last(rev, tensor, contributions):
        return contributions.pop(tensor.name)[-1]

    monkeypatch.setattr(walk, "_total", last)
    assert not compile_and_compare(variant)


# ----- Faults in the lowering -----


def set_lowering(monkeypatch, kind, operator, lowering):
    portable = compiler.TARGETS["portable"]
    table = {**getattr(portable, kind), operator: lowering}
    monkeypatch.setitem(compiler.TARGETS, "portable", dataclasses.replace(portable, **{kind: table}))


@pytest.mark.parametrize("variant", ["salinet", "desalinet-centre"])
def test_a_mask_that_passes_zeros_is_noticed(monkeypatch, variant):
    def not_negative(fwd, mask):
        x = producer(mask.inputs[0]).inputs[0]
        return fwd.emit("GreaterOrEqual", x, np.zeros((), x.dtype), dtype=bool, shape=x.shape)

    set_lowering(monkeypatch, "taps", "Mask", not_negative)
    assert not compile_and_compare(variant)


@pytest.mark.parametrize("variant", ["deconvnet", "salinet"])
@pytest.mark.parametrize("chosen", ["first", "last"])
def test_the_last_of_equal_maxima_is_noticed(monkeypatch, variant, chosen):
    def tilted(fwd, tap):
        """Values differ by 1 or more, so a ramp below that decides between equal ones alone."""
        (x, _), attributes = tap.inputs, dict(tap.attrs)
        shape = tap.outputs[0].shape
        ramp = np.linspace(0, 0.9, int(np.prod(x.shape[2:])), dtype=np.float32).reshape(x.shape[2:])
        slope = fwd.emit("Add", x, ramp if chosen == "last" else -ramp, dtype=x.dtype, shape=x.shape)
        pooled = fwd.emit("MaxPool", slope, dtype=x.dtype, shape=shape, **attributes)
        at = gs.Variable(fwd.fresh(f"{fwd.scope}/at"), np.dtype(np.int64), shape)
        producer(pooled).outputs.append(at)
        return fwd.emit("Mod", at, np.array(ramp.size), dtype=np.int64, shape=shape)

    set_lowering(monkeypatch, "taps", "Switches", tilted)
    assert compile_and_compare(variant) is (chosen == "first")


@pytest.mark.parametrize("variant", ["identity", "deconvnet", "salinet", "desalinet"])
def test_max_unpool_on_overlapping_windows_is_noticed(monkeypatch, variant):
    way = lambda rev, node: switches._max_unpool(rev, node, node.inputs[0])  # noqa: E731
    set_lowering(monkeypatch, "layers", "Unpool", way)
    assert not compile_and_compare(variant)


def set_emit(monkeypatch, operator, change):
    """Every node of one operator is emitted otherwise."""
    emit = Builder.emit

    def changed(self, op, *inputs, **keywords):
        if op == operator:
            inputs, keywords = change(inputs, keywords)
        return emit(self, op, *inputs, **keywords)

    monkeypatch.setattr(Builder, "emit", changed)


def flipped(inputs, keywords):
    y_hat, weight = inputs
    return (y_hat, np.ascontiguousarray(weight.values[..., ::-1, ::-1])), keywords


@pytest.mark.parametrize(
    ("operator", "change"),
    [
        pytest.param(
            "ScatterElements", lambda inputs, k: (inputs, k | {"reduction": "none"}), id="scatter without add"
        ),
        pytest.param("ConvTranspose", flipped, id="kernel turned round"),
        pytest.param(
            "ConvTranspose",
            lambda inputs, k: (
                ((inputs[0], inputs[1].values.swapaxes(0, 1).copy()), k)
                if inputs[1].values.shape[0] == inputs[1].values.shape[1]
                else (inputs, k)
            ),
            id="kernel not transposed",
        ),
        pytest.param(
            "Gemm", lambda inputs, k: (inputs, k | {"transB": 1 - k["transB"]}), id="weight not transposed"
        ),
    ],
)
def test_another_node_is_noticed(monkeypatch, operator, change):
    set_emit(monkeypatch, operator, change)
    assert not compile_and_compare("identity")
