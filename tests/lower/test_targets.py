"""Every target: other operations, the same numbers as portable's."""

import os

import numpy as np
import onnx
import pytest
from graphs import graphs
from hypothesis import HealthCheck, given, note, settings
from layers import NETS, assert_close, fire, reverse, weights
from networks import model, node, picture
from test_random_graphs import compiled

import revgraph
from revgraph.lower import blocks
from revgraph.lower.targets import BOTTLENECKS, TARGETS
from revgraph.verify import verify

OTHERS = ("cpu", "cuda")
"""Those of `tensorrt` and `web` are of the same table as `cuda`'s."""


def others_for(net: onnx.ModelProto) -> tuple[str, ...]:
    """Without those that refuse to pool maps of a size known at run time only."""
    fixed = all(dim.dim_value for dim in net.graph.input[0].type.tensor_type.shape.dim[1:])
    return OTHERS if fixed else OTHERS[:1]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Maps of any number of channels are computed as those of sixteen would be."""
    monkeypatch.setattr(blocks, "BLOCK", 1)


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("target", OTHERS)
def test_the_numbers_are_portables(target, name, variant):
    """Sums in another order: float32 rounding."""
    net = NETS[name]()
    x = picture(3, *(dim.dim_value for dim in net.graph.input[0].type.tensor_type.shape.dim[1:]))
    y = revgraph.Session(revgraph.compile(net, variant=variant)).forward(x).y
    for rows in slice(None), slice(1):
        p = picture(3, *y.shape[1:], seed=1)
        assert_close(
            reverse(net, x[rows], p, variant, target=target), reverse(net, x[rows], p, variant), rtol=1e-5
        )


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("target", OTHERS)
def test_the_proof_passes(target, name, variant):
    net = NETS[name]()
    checks = list(verify(revgraph.compile(net, variant=variant, target=target), net))
    assert [check for check in checks if check.passed is False] == []


@settings(
    max_examples=int(os.environ.get("REVGRAPH_GRAPHS", "25")),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(graphs(exact=True))
def test_graphs_of_integers_agree_exactly(drawn):
    """Ties and exact zeros: masks and switches are the same, and sums of small integers have no rounding."""
    source, shapes, seed = drawn
    note(onnx.printer.to_text(source.graph))
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, shapes[0]).astype(np.float32)
    for variant in revgraph.VARIANTS:
        pairs = [compiled(source, variant, target) for target in ("portable", *others_for(source))]
        sessions = [revgraph.Session(pair, threads=1) for pair in pairs]
        traces = [session.forward(x) for session in sessions]
        p = rng.integers(-2, 3, traces[0].y.shape).astype(np.float32)
        portable, *others = (
            session.reverse(trace, p) for session, trace in zip(sessions, traces, strict=True)
        )
        for target, x_hat in zip(others_for(source), others, strict=True):
            np.testing.assert_array_equal(x_hat, portable, target)


def test_in_blocks_of_sixteen(monkeypatch):
    """As many channels as onnxruntime's blocked operators want, and every form that the cpu target has."""
    monkeypatch.setattr(blocks, "BLOCK", 16)
    rng = np.random.default_rng(0)
    tensors = {name: rng.uniform(0.5, 1.5, 32).astype(np.float32) for name in "gbmv"} | {
        "w1": weights(16, 3, 3, 3),
        "w2": weights(16, 16, 3, 3),
        "wd": weights(32, 1, 3, 3),
        "w3": weights(32, 32, 1, 1),
        "k": rng.uniform(-1.5, 1.5, (32, 1, 1)).astype(np.float32),
        "w4": weights(5, 32, 3, 3),
    }
    pad = {"pads": [1] * 4}
    nodes = [
        node("Conv", "x w1", "c1", **pad),
        node("Relu", "c1", "r1"),
        node("LRN", "r1", "n1", size=5, alpha=0.5),
        node("Conv", "n1 w2", "c2", **pad),
        node("Add", "c2 r1", "s"),
        node("Relu", "s", "r2"),
        node("MaxPool", "r2", "m", kernel_shape=[3, 3], **pad),
        node("Concat", "m r2", "cat", axis=1),
        node("BatchNormalization", "cat g b m0 v", "bn"),
        node("Mul", "bn k", "sc"),
        node("Relu", "sc", "r3"),
        node("Conv", "r3 wd", "d", group=32, **pad),
        node("Conv", "d w3", "c3"),
        node("Add", "c3 cat", "s3"),
        node("MaxPool", "s3", "p", kernel_shape=[3, 3], strides=[2, 2], **pad),
        node("Relu", "p", "r4"),
        node("Conv", "r4 w4", "y", strides=[2, 2]),
    ]
    tensors["m0"] = tensors.pop("m")
    for size in (14, 12), ("H", "W"):
        net = model(nodes, ["N", 3, *size], tensors)
        x = picture(2, 3, 14, 12)
        for variant in revgraph.VARIANTS:
            sessions = [
                revgraph.Session(revgraph.compile(net, variant=variant, target=t))
                for t in ("portable", *others_for(net))
            ]
            for images, rows in (2, 2), (1, 1), (1, 3):
                traces = [session.forward(x[:images]) for session in sessions]
                p = picture(rows, *traces[0].y.shape[1:], seed=1)
                portable, *others = (s.reverse(t, p) for s, t in zip(sessions, traces, strict=True))
                for x_hat in others:
                    assert_close(x_hat, portable)


def test_sums_are_inside_convolutions():
    """Every sum of the reversed graph can be taken in by a convolution, whatever else it adds."""
    pair = revgraph.compile(fire(), variant="desalinet", target="cpu")
    writers = {name: n for n in pair.reversed.graph.node for name in n.output}
    sums = [n for n in pair.reversed.graph.node if n.op_type in ("Add", "Sum") and "unpool" not in n.name]
    assert sums
    for n in sums:
        assert any(name in writers and writers[name].op_type == "Conv" for name in n.input), n.name


def test_ranks_that_nobody_knows_do_no_harm():
    """Beside the way from x to y, as in detection heads."""
    nodes = [
        node("Conv", "x w", "c"),
        node("Relu", "c", "y"),
        node("Reshape", "y s", "q"),
        node("Concat", "q q", "qq", axis=1),
        node("LRN", "qq", "l", size=3),
        node("Mul", "l k", "z"),
    ]
    tensors = {"w": weights(4, 3, 1, 1), "k": np.ones((4, 1, 1), np.float32)}
    net = model(nodes, ["N", 3, 6, 6], tensors, ["y", "z"])
    net.graph.input.append(onnx.helper.make_tensor_value_info("s", onnx.TensorProto.INT64, [None]))
    net.graph.output[1].CopyFrom(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [*"abcd"]))
    for target in TARGETS:
        assert revgraph.compile(net, variant="salinet", at="y", target=target).taps


def test_dimensions_of_one_name_are_not_one_dimension():
    """The reversed graph is opened for a number of images; what only shares its name stays free."""
    for shape in (["D", 3, "D", "D"], ["N", 3, "N", 4]):
        net = model([node("Relu", "x", "y")], shape)
        session = revgraph.Session(net, variant="salinet")
        x = picture(2, 3, 5, 4)
        np.testing.assert_array_equal(session.reverse(session.forward(x), x), x * (x > 0))
    for m, values in ((["H", "W"], (5, 6)), (["M", 3, 1, 1], (1, 3, 1, 1)), (["C", 1, 1], (3, 1, 1))):
        net = model([node("Mul", "x m", "c"), node("Relu", "c", "y")], ["N", 3, "H", "W"])
        net.graph.input.append(onnx.helper.make_tensor_value_info("m", onnx.TensorProto.FLOAT, m))
        y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3, "H", "W"])
        net.graph.output[0].CopyFrom(y)
        session = revgraph.Session(net, variant="salinet", input="x")
        for n in 2, 1:
            x, factor = picture(n, 3, 5, 6), picture(*values)
            trace = session.forward(x, m=factor)
            expected = factor * (x * factor > 0)
            np.testing.assert_array_equal(session.reverse(trace, np.ones_like(x)), expected + 0 * x)


# ----- Zeros, denormals, infinities -----

TINY = np.array([0, -0.0, 1.4e-45, -1.4e-45, 1e-40, -1e-40, 3e-39, 1e-30, 3e-20, 1, -1], np.float32)
EVERYWHERE = [(target, kind) for target in TARGETS for kind in BOTTLENECKS]
STEEP = ("cpu", "plain")
"""Its masks in blocks are products, which denormals are too small for: see tests/lower/test_cpu.py."""


def through(nodes, x, target, kind, variant="salinet", p=None):
    """x_hat of channels that are alike, one of them, between two convolutions with the identity."""
    eye = np.eye(8, dtype=np.float32)[..., None, None]
    nodes = [node("Conv", "x w", "c"), *nodes, node("Conv", "m w", "y")]
    net = model(nodes, ["N", 8, *x.shape], {"w": eye})
    pair = revgraph.compile(net, variant=variant, target=target, bottleneck=kind)
    session = revgraph.Session(pair, threads=1)
    trace = session.forward(np.broadcast_to(x, (1, 8, *x.shape)).copy())
    p = np.ones(trace.y.shape[2:], np.float32) if p is None else p
    x_hat = session.reverse(trace, np.broadcast_to(p, trace.y.shape).copy())[0]
    assert (x_hat == x_hat[:1]).all()
    return x_hat[0]


@pytest.mark.parametrize("variant", ["salinet", "desalinet", "salinet-centre"])
@pytest.mark.parametrize(("target", "kind"), EVERYWHERE)
def test_a_unit_is_open_where_x_is_positive_however_small(target, kind, variant):
    """r = [x > 0], strictly; minus zero is none."""
    x = TINY[None]
    if (target, kind) == STEEP:
        x = x[:, (x[0] > 3.3e-20) | (x[0] <= 0)]
    x_hat = through([node("Relu", "c", "m")], x, target, kind, variant)
    np.testing.assert_array_equal(x_hat, (x > 0).astype(np.float32))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("target", "kind"), EVERYWHERE)
def test_of_equal_maxima_the_first_is_chosen_minus_zero_among_them(target, kind, stride):
    """Eq. (9) in loops: the first in row-major order, where 0 and -0 are the same."""
    t = 1e-30 if (target, kind) == STEEP else 1e-40
    x = np.array(
        [[0, -0.0, t, 2 * t], [-0.0, 0, 2 * t, t], [-0.0, -0.0, -t, -1], [0, -0.0, 1, 1]], np.float32
    )
    n = (4 - 2) // stride + 1
    p = np.arange(1, n * n + 1, dtype=np.float32).reshape(n, n)
    expected = np.zeros((4, 4), np.float32)
    for i, j in np.ndindex(n, n):
        window = [(i * stride + a, j * stride + b) for a in range(2) for b in range(2)]
        expected[max(window, key=lambda at: x[at])] += p[i, j]  # of equals the first
    pool = node("MaxPool", "c", "m", kernel_shape=[2, 2], strides=[stride] * 2)
    np.testing.assert_array_equal(through([pool], x, target, kind, p=p), expected)


@pytest.mark.parametrize(("target", "kind"), EVERYWHERE)
def test_windows_reach_into_the_padding_and_find_nothing_there(target, kind):
    """All of x is below any number that might be padded with instead of minus infinity."""
    lowest = np.finfo(np.float32).min
    x = np.full((3, 3), lowest, np.float32)
    x[1, 1] = np.nextafter(lowest, np.float32(0))
    pool = node("MaxPool", "c", "m", kernel_shape=[2, 2], strides=[2, 2], pads=[1] * 4)
    p = np.arange(1, 5, dtype=np.float32).reshape(2, 2)
    expected = np.array([[1, 2, 0], [3, 4, 0], [0, 0, 0]], np.float32)
    np.testing.assert_array_equal(through([pool], x, target, kind, p=p), expected)
