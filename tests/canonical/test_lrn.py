"""Local response normalisation as exporters write it is reversed as ONNX's own operator; nothing else is."""

import time

import numpy as np
import pytest
from layers import assert_close, reverse
from networks import model, node, picture, run

from revgraph import canonical
from revgraph.canonical import patterns

C, SIZE, ALPHA, BETA, BIAS = 6, 3, 0.7, 0.6, 1.3
X, P = picture(2, C, 4, 5), picture(2, C, 4, 5, seed=1)
NATIVE = model([node("LRN", "x", "y", size=SIZE, alpha=ALPHA, beta=BETA, bias=BIAS)], ["N", C, 4, 5])


def band(channels, before=1, after=1):
    """1 where channel k is one of those around channel c, (c, k)."""
    c, k = np.indices((channels, channels))
    return ((k >= c - before) & (k <= c + after)).astype(np.float32)


def number(value):
    return np.array(value, np.float32)


TENSORS = {
    "1": np.array([1]),
    "deep": np.array([0, 0, 1, 0, 0, 0, 0, 1, 0, 0]),
    "around": np.array([0, 1, 0, 0, 0, 1, 0, 0]),
    "behind": np.array([0, 0, 0, 1, 0, 0, 0, 1]),
    "planes": np.array([0, 1, C, -1]),
    "alpha": number(ALPHA),
    "share": number(ALPHA / SIZE),
    "bias": number(BIAS),
    "beta": number(BETA),
    "-beta": number(-BETA),
    "eps": number(1e-5),
    "two": number(2),
    "ones": np.ones((1, 1, SIZE, 1, 1), np.float32),
    "kernel": ALPHA / SIZE * band(C)[:, :, None, None],
    "off": ALPHA / SIZE * band(C, 2, 0)[:, :, None, None],
    "weighted": ALPHA / SIZE * (band(C) + 0.1 * np.eye(C, dtype=np.float32))[:, :, None, None],
    "all": np.full((C, C, 1, 1), 0.1, np.float32),
    "6": np.array([6]),
    "0": np.array([0]),
    "2": np.array([2]),
    "7": np.array([7]),
    "8": np.array([8]),
}


SQUARE = node("Mul", "x x", "q")
POWER = [node("Add", "m bias", "d"), node("Pow", "d beta", "e"), node("Div", "x e", "y")]
BY_ALPHA, BY_SHARE = [node("Mul", "w alpha", "m"), *POWER], [node("Mul", "w share", "m"), *POWER]
SLICES = [node("Slice", f"f {i} {i + 6} 1", f"p{i}") for i in range(3)]

SPELLED = {
    "TorchScript": [
        SQUARE,
        node("Unsqueeze", "q 1", "u"),
        node("Pad", "u deep", "f"),
        node("AveragePool", "f", "g", kernel_shape=[SIZE, 1, 1]),
        node("Squeeze", "g 1", "w"),
        *BY_ALPHA,
    ],
    "pads in the pool": [
        SQUARE,
        node("Unsqueeze", "q 1", "u"),
        node(
            "AveragePool", "u", "g", kernel_shape=[SIZE, 1, 1], pads=[1, 0, 0, 1, 0, 0], count_include_pad=1
        ),
        node("Squeeze", "g 1", "w"),
        *BY_ALPHA,
    ],
    "shapes of the run": [
        SQUARE,
        node("Reshape", "q planes", "u"),
        node("AveragePool", "u", "g", kernel_shape=[SIZE, 1], pads=[1, 0, 1, 0], count_include_pad=1),
        node("Shape", "x", "s"),
        node("Reshape", "g s", "w"),
        *BY_ALPHA,
    ],
    "sum of slices": [
        SQUARE,
        node("Pad", "q around", "f"),
        *SLICES,
        node("Add", "p0 p1", "v"),
        node("Add", "v p2", "w"),
        *BY_SHARE,
    ],
    "convolved": [SQUARE, node("Conv", "q kernel", "m"), *POWER],
    "convolved with ones": [
        SQUARE,
        node("Unsqueeze", "q 1", "u"),
        node("Conv", "u ones", "g", pads=[1, 0, 0, 1, 0, 0]),
        node("Squeeze", "g 1", "w"),
        *BY_SHARE,
    ],
    "times the inverse": [
        node("Pow", "x two", "q"),
        node("Conv", "q kernel", "m"),
        node("Add", "bias m", "d"),
        node("Pow", "d -beta", "e"),
        node("Mul", "e x", "y"),
    ],
}


def net(nodes, shape=("N", C, 4, 5)):
    read = {name for each in nodes for name in each.input}
    return model(nodes, shape, {name: values for name, values in TENSORS.items() if name in read})


def operators(source):
    """While rules are applied."""
    graph = canonical.canonicalise(source)
    with patterns.grouped(graph, graph.outputs[0]):
        return [each.op for each in graph.nodes]


@pytest.mark.parametrize("spelling", SPELLED)
@pytest.mark.parametrize("lrn", ["identity", "bp"])
def test_what_exporters_write(spelling, lrn):
    source = net(SPELLED[spelling])
    assert_close(run(source, x=X)["y"], run(NATIVE, x=X)["y"])
    assert operators(source) == ["LRN"]
    for variant in "salinet", "deconvnet-centre":
        assert_close(reverse(source, X, P, variant, lrn=lrn), reverse(NATIVE, X, P, variant, lrn=lrn))
    assert_close(reverse(source, X, P, "salinet"), reverse(NATIVE, X, P, "salinet"))


@pytest.mark.parametrize("spelling", ["convolved", "TorchScript"])
def test_sizes_that_only_the_run_knows(spelling):
    source = net(SPELLED[spelling], ["N", C, "H", "W"])
    assert operators(source) == ["LRN"]
    assert_close(reverse(source, X, P, lrn="bp"), reverse(NATIVE, X, P, lrn="bp"))


def last(t):
    return np.ascontiguousarray(np.moveaxis(t, 1, -1))


@pytest.mark.parametrize("lrn", ["identity", "bp"])
def test_channels_may_come_last(lrn):
    nodes = [SQUARE, node("Pad", "q behind", "f"), node("Transpose", "f", "g", perm=[0, 3, 1, 2])]
    nodes += [node("Slice", f"g {i} {i + 6} 1", f"p{i}") for i in range(3)]
    nodes += [
        node("Add", "p0 p1", "r"),
        node("Add", "r p2", "v"),
        node("Transpose", "v", "w", perm=[0, 2, 3, 1]),
        *BY_SHARE,
    ]
    source = net(nodes, ["N", 4, 5, C])
    assert operators(source) == ["Transpose", "LRN", "Transpose"]
    assert_close(reverse(source, last(X), last(P), lrn=lrn), last(reverse(NATIVE, X, P, lrn=lrn)))


@pytest.mark.parametrize("shape", [(2, 1), (2, 2), (3, 1), (6, 1)])
@pytest.mark.parametrize("n", [3, 5])
def test_few_channels_and_positions_tell_the_window_too(shape, n):
    """One picture of two numbers would fit any window."""
    pads = np.array([0, 0, (n - 1) // 2, 0, 0, 0, n // 2, 0])
    nodes = [*SPELLED["TorchScript"]]
    nodes[2], nodes[3] = node("Pad", "u pads", "f"), node("AveragePool", "f", "g", kernel_shape=[n, 1])
    source = model(
        nodes, ["N", *shape], {**{k: TENSORS[k] for k in ("1", "alpha", "bias", "beta")}, "pads": pads}
    )
    x, p = picture(2, *shape), picture(2, *shape, seed=1)
    native = model(
        [
            node("Unsqueeze", "x 3", "u"),
            node("LRN", "u", "l", size=n, alpha=ALPHA, beta=BETA, bias=BIAS),
            node("Squeeze", "l 3", "y"),
        ],
        ["N", *shape],
        {"3": np.array([3])},
    )
    assert_close(reverse(source, x, p), reverse(native, x, p))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_window_of_one_channel_is_no_neighbourhood(channels):
    nodes = [SQUARE, node("Mul", "q alpha", "m"), *POWER]
    source = net(nodes, ["N", channels, 4])
    assert "LRN" not in operators(source)
    assert_by_bp(source, picture(2, channels, 4))


VARIANCE = [
    node("ReduceMean", "x", "mean", axes=[1]),
    node("Sub", "x mean", "c"),
    node("Mul", "c c", "q"),
    node("ReduceMean", "q", "w", axes=[1]),
]
ROOT = [node("Add", "w eps", "d"), node("Sqrt", "d", "e")]

OTHERS = {
    "fewer channels at the edges": [
        SQUARE,
        node("Unsqueeze", "q 1", "u"),
        node("AveragePool", "u", "g", kernel_shape=[SIZE, 1, 1], pads=[1, 0, 0, 1, 0, 0]),
        node("Squeeze", "g 1", "w"),
        *BY_ALPHA,
    ],
    "L2 over all channels": [SQUARE, node("ReduceSum", "q 1", "w"), *ROOT, node("Div", "x e", "y")],
    "L2 by a convolution": [SQUARE, node("Conv", "q all", "w"), *ROOT, node("Div", "x e", "y")],
    "RMS over channels": [SQUARE, node("ReduceMean", "q", "w", axes=[1]), *ROOT, node("Div", "x e", "y")],
    "layer normalisation": [*VARIANCE, *ROOT, node("Div", "c e", "y")],
    "instance normalisation": [
        node("ReduceMean", "x", "mean", axes=[2, 3]),
        node("Sub", "x mean", "c"),
        node("Mul", "c c", "q"),
        node("ReduceMean", "q", "w", axes=[2, 3]),
        *ROOT,
        node("Div", "c e", "y"),
    ],
    "no bias": [SQUARE, node("Conv", "q kernel", "d"), node("Pow", "d beta", "e"), node("Div", "x e", "y")],
    "a window off centre": [SQUARE, node("Conv", "q off", "m"), *POWER],
    "a window that weighs": [SQUARE, node("Conv", "q weighted", "m"), *POWER],
    "another numerator": [
        SQUARE,
        node("Conv", "q kernel", "m"),
        *POWER[:2],
        node("Neg", "x", "n"),
        node("Div", "n e", "y"),
    ],
    "positions in place of channels": [
        SQUARE,
        node("AveragePool", "q", "w", kernel_shape=[3, 1], pads=[1, 0, 1, 0], count_include_pad=1),
        *BY_ALPHA,
    ],
}


ODD = {
    "a power of zero": [node("Pow", "x none", "d"), node("Div", "x d", "y")],
    "a negative divisor": [
        SQUARE,
        node("Sqrt", "q", "e"),
        node("Sub", "small e", "d"),
        node("Div", "x d", "y"),
    ],
    "an endless divisor": [node("Pow", "x large", "d"), node("Div", "x d", "y")],
}


@pytest.mark.parametrize("odd", ODD)
def test_what_fits_no_curve_is_none(odd):
    numbers = {"none": 0, "small": -1, "large": 400, "two": 2}
    tensors = {name: np.array(value, np.float32) for name, value in numbers.items()}
    assert "LRN" not in operators(model(ODD[odd], ["N", C, 4, 5], tensors))


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_none_is_back_propagated(other):
    source = net(OTHERS[other])
    assert "LRN" not in operators(source)
    assert_by_bp(source, X)


def assert_by_bp(source, x):
    """Whatever LRN's reversal is, against central differences of onnxruntime's own run."""
    p = picture(*x.shape, seed=1)
    direction, step = picture(*x.shape, seed=2), 1e-3
    ends = [(p * run(source, x=x + s * step * direction)["y"].astype(np.float64)).sum() for s in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    for variant, lrn in ("salinet", "bp"), ("desalinet", "identity"):
        x_hat = reverse(source, x, p, variant, lrn=lrn)
        np.testing.assert_allclose((x_hat * direction).sum(), slope, rtol=1e-2)


def test_many_channels_are_searched_in_no_time():
    nodes = [SQUARE, node("ReduceSum", "q 1", "w"), *ROOT, node("Div", "x e", "y")]
    start = time.process_time()
    assert "LRN" not in operators(net(nodes, ["N", 2048, 7, 7]))
    assert time.process_time() - start < 5  # 0.2 s, and 17 s where each size is fitted to every number
