"""Seeded faults: what the comparison with the reference would let through, were it too weak.

The network is of small integers, so that float32 is exact, agreement is equality, and exact zeros before a
ReLU and equal maxima within a window abound.
"""

import dataclasses

import numpy as np
import pytest
from networks import model, node

import revgraph
from revgraph import op, reference, variants
from revgraph import reverse as walk
from revgraph.canonical import activations, on_graph, patterns
from revgraph.graph import Builder, gs, producer
from revgraph.lower import portable, switches
from revgraph.lower.targets import TARGETS
from revgraph.rules import affine, along, crop, maxpool, norm, relu, wiring
from revgraph.rules.rule import Rule
from revgraph.window import explicit_pads

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
    portable = TARGETS["portable"]
    table = {**getattr(portable, kind), operator: lowering}
    monkeypatch.setitem(TARGETS, "portable", dataclasses.replace(portable, **{kind: table}))


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


# ----- Faults in the rules of other operators -----

C = integers(2, 4, 6, 6)
LAYERS = {
    "Concat": [node("Neg", "x", "n"), node("Concat", "x n x", "y", axis=2)],
    "Gather": [node("Gather", "x at", "y", axis=1)],
    "LRN": [
        node("Mul", "x x", "q"),
        node("Conv", "q band", "m"),
        node("Add", "m 1", "d"),
        node("Pow", "d half", "e"),
        node("Div", "x e", "y"),
    ],
    "LayerNormalization": [node("LayerNormalization", "x gamma", "y", axis=1, epsilon=0.5)],
    "MatMul": [node("Transpose", "x", "t", perm=[0, 1, 3, 2]), node("MatMul", "x t", "y")],
    "Max": [node("Neg", "x", "n"), node("Max", "x n", "y")],
    "Pad": [node("Pad", "x pads", "y", mode="reflect")],
    "ReduceMax": [node("Relu", "x", "r"), node("ReduceMax", "r", "y", axes=[1, 3])],
    "SAME": [node("AveragePool", "x", "y", kernel_shape=[3, 3], auto_pad="SAME_LOWER", strides=[2, 2])],
    "Slice": [node("Slice", "x [1] end [2]", "y")],
    "Slice by steps": [node("Slice", "x [1] end [2] [2]", "y")],
    "Where": [node("Greater", "x 0", "c"), node("Neg", "x", "n"), node("Where", "c x n", "y")],
}
TENSORS = {
    "0": np.float32(0),
    "1": np.float32(1),
    "half": np.float32(0.5),
    "at": np.array([0, 2, 2, -1, 2]),
    "band": np.array([abs(i - k) < 2 for i in range(4) for k in range(4)], np.float32).reshape(4, 4, 1, 1),
    "end": np.array([2**62]),
    "gamma": np.ones((4, 6, 6), np.float32),
    "pads": np.array([0, 0, 2, 1, 0, 0, 0, 3]),
    "[1]": np.array([1]),
    "[2]": np.array([2]),
}
FIXED = ("LayerNormalization",)


def layer_agrees(name, variant="salinet", free=False):
    """Whether x_hat is the reference's; `free` where only the run knows the size."""
    read = {tensor for each in LAYERS[name] for tensor in each.input}
    tensors = {tensor: values for tensor, values in TENSORS.items() if tensor in read}
    source = model(LAYERS[name], ["N", 4, *(("H", "W") if free else (6, 6))], tensors)
    values = reference.forward(source, {"x": C})
    p = np.random.default_rng(3).integers(1, 5, values["y"].shape).astype(np.float32)
    expected = reference.reverse(source, values, variant=variant, at="y", to="x", p=p)["x"]
    session = revgraph.Session(revgraph.compile(source, variant=variant, at="y"), threads=1)
    found = session.reverse(session.forward(C), p)
    close = found.shape == expected.shape and np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    return bool(close)


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_other_layers_as_they_are_agree(name, free):
    assert layer_agrees(name, free=free and name not in FIXED)


def without_repeats(inputs, keywords):
    """The first of several reads of an element gives back, the others do not."""
    y_hat, matrix = inputs
    return (y_hat, matrix * (matrix.cumsum(axis=0) == 1).astype(matrix.dtype)), keywords


@pytest.mark.parametrize(
    ("layer", "operator", "change"),
    [
        pytest.param(
            "ReduceMax",
            "ArgMax",
            lambda i, k: (i, k | {"select_last_index": 1}),
            id="the last of equal maxima",
        ),
        pytest.param("Gather", "MatMul", without_repeats, id="repetitions that do not add"),
    ],
)
def test_another_node_in_other_layers_is_noticed(monkeypatch, layer, operator, change):
    set_emit(monkeypatch, operator, change)
    assert not layer_agrees(layer)


def without_projection(rev, x, z_hat, axes, norm):
    """(z_hat - mean(z_hat)) / s, which lacks z mean(z_hat z)."""
    like = {"dtype": x.dtype, "shape": x.shape}
    one = {"dtype": x.dtype, "shape": [1 if i in axes else n for i, n in enumerate(x.shape)]}

    def mean(a):
        return rev.emit("ReduceMean", a, axes=axes, **one)

    centred = rev.emit("Sub", x, mean(x), **like)
    variance = mean(rev.emit("Mul", centred, centred, **like))
    shifted = rev.emit("Add", variance, np.array(norm.attrs["epsilon"], x.dtype), **one)
    inner = rev.emit("Sub", z_hat, mean(z_hat), **like)
    return rev.emit("Div", inner, rev.emit("Sqrt", shifted, **one), **like)


FAULTS = {
    "a statistic that is taken for a constant": (
        "LayerNormalization",
        norm,
        "_standardised",
        without_projection,
    ),
    "a factor that is not transposed": ("MatMul", affine, "_turned", lambda rev, x: x),
    "a written LRN that is not recognised": ("LRN", patterns, "RECOGNISERS", (activations.recognise,)),
    "SAME_LOWER for SAME_UPPER": (
        "SAME",
        on_graph,
        "explicit_pads",
        lambda mode, *window: explicit_pads("SAME_UPPER", *window),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_other_layers_is_noticed(monkeypatch, fault):
    layer, module, name, faulty = FAULTS[fault]
    monkeypatch.setattr(module, name, faulty)
    assert not layer_agrees(layer, "desalinet")


def upper_begin(rev, row, window, begin=portable.same_begin):
    return begin(rev, row, dataclasses.replace(window, same="SAME_UPPER"))


def swapped_pad(rev, y_hat, axis, begin, end, n, pad=along.pad):
    return pad(rev, y_hat, axis, end, begin, n)


def count_from_one(rev, n, count=along.count):
    return rev.emit("Add", count(rev, n), np.array(1), dtype=np.int64, shape=[None])


FREE_FAULTS = {
    "SAME_LOWER for SAME_UPPER": ("SAME", portable, "same_begin", upper_begin),
    "a slice that returns to the other end": ("Slice", along, "pad", swapped_pad),
    "positions that begin at one": ("Slice by steps", along, "count", count_from_one),
}


@pytest.mark.parametrize("fault", FREE_FAULTS)
def test_a_fault_at_free_sizes_is_noticed(monkeypatch, fault):
    layer, module, name, faulty = FREE_FAULTS[fault]
    monkeypatch.setattr(module, name, faulty)
    assert not layer_agrees(layer, free=True)


def test_a_part_of_a_concatenation_that_is_off_by_one_is_noticed(monkeypatch):
    emit = Builder.emit

    def earlier(self, op, *inputs, **keywords):
        if op == "Slice" and not any(isinstance(t, np.ndarray) for t in inputs[1:3]):
            bounds = [emit(self, "Sub", t, np.array([1]), dtype=np.int64, shape=[1]) for t in inputs[1:3]]
            inputs = (inputs[0], *bounds, *inputs[3:])
        return emit(self, op, *inputs, **keywords)

    monkeypatch.setattr(Builder, "emit", earlier)
    assert not layer_agrees("Concat", free=True)


def reflect_as_constant(rev, pad, y_hat, r):
    return (crop._crop_or_pad(rev, pad, y_hat, pad.inputs[0], [-int(n) for n in pad.inputs[1].values]),)


def where_swapped(rev, where, y_hat, r):
    none, a_hat, b_hat = wiring.where.reverse(rev, where, y_hat, r)
    return none, b_hat, a_hat


def all_that_attain(fwd, node):
    y = node.outputs[0]
    equal = [fwd.emit("Equal", x, y, dtype=bool, shape=y.shape) for x in node.inputs]
    kind = {"dtype": y.dtype, "shape": y.shape, "to": y.dtype.type}
    return tuple(op.mask(fwd, fwd.emit("Cast", each, **kind)) for each in equal)


@pytest.mark.parametrize(
    ("layer", "operator", "rule"),
    [
        pytest.param(
            "Max",
            "Max",
            dataclasses.replace(maxpool.chosen, bottleneck=all_that_attain),
            id="all of equal tensors",
        ),
        pytest.param("Pad", "Pad", Rule("cut off", reflect_as_constant), id="reflection as zeros"),
        pytest.param(
            "Where",
            "Where",
            dataclasses.replace(wiring.where, reverse=where_swapped),
            id="to the one not taken",
        ),
    ],
)
def test_another_rule_of_other_layers_is_noticed(monkeypatch, layer, operator, rule):
    monkeypatch.setitem(variants.SHARED, operator, rule)
    assert not layer_agrees(layer)


@pytest.mark.parametrize(
    ("variant", "rule"), [("salinet", maxpool.middle), ("salinet-centre", maxpool.first)]
)
def test_the_other_choice_of_a_maximum_is_noticed(monkeypatch, variant, rule):
    assert layer_agrees("ReduceMax", variant)
    set_rule(monkeypatch, variant, "ReduceMax", rule)
    assert not layer_agrees("ReduceMax", variant)
