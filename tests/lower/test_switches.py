"""The switches that cross from the forward file to the reversed one, and what unpools with them."""

import numpy as np
import pytest
from layers import assert_close, reverse
from networks import model, node, picture

import revgraph
from revgraph import reference

WINDOWS = {
    "2x2/2": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "2x2/3": {"kernel_shape": [2, 2], "strides": [3, 3]},
    "3x3/2": {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    "3x2/1, padded": {"kernel_shape": [3, 2], "pads": [2, 0, 1, 1]},
    "dilated, disjoint": {"kernel_shape": [2, 2], "strides": [3, 3], "dilations": [2, 2]},
    "dilated": {"kernel_shape": [2, 2], "strides": [2, 2], "dilations": [2, 3]},
}
OVERHANG = {"2x2/2, ceil_mode": {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}}
POOLS = WINDOWS | OVERHANG
SIZE = (8, 7)


def net(case, *shape):
    return model([node("MaxPool", "x", "pool", **POOLS[case])], [*shape])


def switches(source, x):
    session = revgraph.Session(revgraph.compile(source, variant="salinet"), threads=1)
    trace = session.forward(x)
    return trace.y, trace.taps["pool/switches"].numpy()


def first_maximum(plane, u, attributes):
    """The row-major position in the plane of the window's first maximum."""
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    begin, best = attributes.get("pads", [0] * 4)[:2], None
    for tap in np.ndindex(*attributes["kernel_shape"]):
        i, j = (a * s + t * d - b for a, s, t, d, b in zip(u, strides, tap, dilations, begin, strict=True))
        inside = 0 <= i < plane.shape[0] and 0 <= j < plane.shape[1]
        if inside and (best is None or plane[i, j] > plane[best]):
            best = i, j
    return best[0] * plane.shape[1] + best[1]


@pytest.mark.parametrize("case", POOLS)
@pytest.mark.parametrize("shape", [("N", 2, *SIZE), (3, 2, *SIZE), ("N", 2, "H", "W")], ids=str)
@pytest.mark.parametrize("ties", [False, True])
def test_positions_are_each_plane_s_own(case, shape, ties):
    """Three images of two channels: MaxPool's own Indices would count on through all six planes."""
    x = np.random.default_rng(2).integers(0, 3, (3, 2, *SIZE)).astype(np.float32)
    x = x if ties else picture(3, 2, *SIZE)
    y, found = switches(net(case, *shape), x)
    assert found.dtype == np.int64
    assert found.shape == y.shape
    expected = [first_maximum(x[n, c], u, POOLS[case]) for n, c, *u in np.ndindex(*y.shape)]
    assert found.ravel().tolist() == expected
    assert found.max() < np.prod(SIZE)


@pytest.mark.parametrize("case", WINDOWS)
@pytest.mark.parametrize("size", [SIZE, ("H", "W")], ids=str)
def test_max_unpool_serves_disjoint_windows_alone(case, size):
    pair = revgraph.compile(net(case, "N", 2, *size), variant="identity")
    ops = [layer.op_type for layer in pair.reversed.graph.node]
    disjoint = case in ("2x2/2", "2x2/3", "dilated, disjoint")
    assert ops.count("MaxUnpool") == disjoint
    scatters = [layer for layer in pair.reversed.graph.node if layer.op_type == "ScatterElements"]
    assert len(scatters) == (not disjoint)
    for layer in scatters:
        attributes = {a.name: a for a in layer.attribute}
        assert attributes["reduction"].s == b"add"


@pytest.mark.parametrize("case", POOLS)
@pytest.mark.parametrize("size", [SIZE, ("H", "W")], ids=str)
@pytest.mark.parametrize("n", [1, 3])
def test_both_ways_put_back_where_the_maximum_was(case, size, n):
    source, x = net(case, "N", 2, *size), picture(n, 2, *SIZE)
    values = reference.forward(source, {"x": x})
    p = picture(3, *values["pool"].shape[1:], seed=1)
    expected = reference.reverse(source, values, variant="identity", at="pool", to="x", p=p)["x"]
    assert_close(reverse(source, x, p, "identity"), expected)


def test_indices_that_the_model_reads_itself_stay():
    pool = node("MaxPool", "x", "pool", kernel_shape=[2, 2], strides=[2, 2])
    pool.output.append("indices")
    source = model([pool, node("Cast", "indices", "y", to=1)], [2, 2, *SIZE], outputs=["pool", "y"])
    x = picture(2, 2, *SIZE)
    trace = revgraph.Session(revgraph.compile(source, variant="salinet"), threads=1).forward(x)
    _, plain = switches(net("2x2/2", 2, 2, *SIZE), x)
    np.testing.assert_array_equal(trace.taps["pool/switches"].numpy(), plain)
    np.testing.assert_array_equal(trace.outputs["y"] % np.prod(SIZE), plain)
