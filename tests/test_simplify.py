"""Passes on the middle form: where each applies, where it must not, and that the numbers are the paper's."""

import numpy as np
import pytest
from layers import assert_close, weights
from networks import model, node, picture

import revgraph
from revgraph import reference
from revgraph.lower import blocks

C = [1, 1, 1, 1]
POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}
OVERLAPPING = {"kernel_shape": [3, 3], "strides": [2, 2]}
WEIGHTS = {
    "w": weights(6, 3, 3, 3),
    "v": weights(6, 6, 3, 3),
    "u": weights(6, 6, 1, 1),
    "g": weights(6, 3, 3, 3)[::-1],
    "c": np.linspace(-1, 1, 6, dtype=np.float32)[:, None, None],
    "wide": weights(6, 12, 3, 3),
    "wide1": weights(6, 12, 1, 1),
    "deep": weights(12, 3, 3, 3),
    "half": weights(6, 6, 3, 3)[::-1],
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Maps of any number of channels are computed as those of sixteen would be."""
    monkeypatch.setattr(blocks, "BLOCK", 1)


def simplified(nodes, variant, target="cpu"):
    """The pair for a target, whose numbers are those of the reference."""
    net = model(nodes, ["N", 3, 12, 10], WEIGHTS, outputs=["y"])
    pair = revgraph.compile(net, variant=variant, target=target, lrn="identity")
    session, x = revgraph.Session(pair, threads=1), picture(2, 3, 12, 10)
    trace = session.forward(x)
    p = picture(*trace.y.shape, seed=1)
    tensors = reference.forward(net, {"x": x})
    options = {"variant": variant, "at": "y", "to": "x", "p": p, "lrn": "identity"}
    assert_close(session.reverse(trace, p), reference.reverse(net, tensors, **options)["x"])
    return pair


def operators(pair):
    return [layer.op_type for layer in pair.reversed.graph.node]


# ----- A gate before an unpooling -----

STEM = [node("Conv", "x w", "c0", pads=C), node("Relu", "c0", "r")]
KEEPING = {
    "nothing": [],
    "Identity": [node("Identity", "r", "s")],
    "LRN": [node("LRN", "r", "s", size=3, alpha=2.0)],
    "Dropout": [node("Dropout", "r", "s")],
    "two of them": [node("Dropout", "r", "t"), node("LRN", "t", "s", size=3)],
}


@pytest.mark.parametrize("target", ["cpu", "cuda"])
@pytest.mark.parametrize("variant", ["salinet", "desalinet"])
@pytest.mark.parametrize("between", KEEPING)
def test_units_are_masked_before_they_are_unpooled(between, variant, target):
    """One mask of as many units as the pool gives; that of what it takes crosses no more."""
    middle = KEEPING[between]
    pool = node("MaxPool", "s" if middle else "r", "m", **POOL)
    pair = simplified([*STEM, *middle, pool, node("Conv", "m v", "y")], variant, target)
    taps = [tap for tap in pair.taps if not tap.endswith("switches")]
    assert taps in (["m/mask"], ["m/penalty"])
    assert [value.name for value in pair.reversed.graph.input] == ["p", *pair.taps]
    assert [value.name for value in pair.forward.graph.output] == ["y", *pair.taps]


def test_not_where_signs_change_on_the_way_to_the_pool():
    """A unit that is zero may be the maximum of what it becomes, and its mask is shut."""
    nodes = [*STEM, node("Add", "r c", "s"), node("MaxPool", "s", "m", **POOL), node("Conv", "m v", "y")]
    assert "r/mask" in simplified(nodes, "salinet").taps


def test_each_gate_by_itself():
    nodes = [
        *STEM,
        node("MaxPool", "r", "m", **POOL),
        node("Relu", "m", "q"),
        node("Add", "q c", "s"),
        node("MaxPool", "s", "o", kernel_shape=[2, 2]),
        node("Conv", "o u", "y"),
    ]
    taps = simplified(nodes, "salinet").taps
    assert {"q/mask", "m/mask"} <= set(taps)
    assert "r/mask" not in taps


# ----- A rectifier before an unpooling -----


@pytest.mark.parametrize(("window", "before"), [(POOL, True), (OVERLAPPING, False)])
def test_numbers_are_rectified_before_they_are_unpooled_where_none_meet(window, before):
    pair = simplified([*STEM, node("MaxPool", "r", "m", **window), node("Conv", "m v", "y")], "deconvnet")
    found = operators(pair)
    unpool = next(found.index(each) for each in ("MaxUnpool", "ScatterElements") if each in found)
    assert (found.index("Relu") < unpool) == before


@pytest.mark.parametrize("variant", ["deconvnet", "desalinet"])
def test_p_itself_is_rectified(variant):
    simplified([STEM[0], node("Relu", "c0", "y")], variant)


def test_what_two_rectifiers_read_is_unpooled_once():
    nodes = [
        *STEM,
        node("Conv", "x g", "c1", pads=C),
        node("Relu", "c1", "r1"),
        node("Add", "r r1", "s"),
        node("MaxPool", "s", "m", **POOL),
        node("Conv", "m v", "y"),
    ]
    for variant in revgraph.VARIANTS:
        pair = simplified(nodes, variant)
        assert sum(each == "MaxUnpool" for each in operators(pair)) == (not variant.endswith("-centre"))


# ----- Kernels cut where a concatenation was -----

JOINED = [*STEM, node("Conv", "x g", "c1", pads=C), node("Concat", "r c1", "cat", axis=1)]
# id: nodes behind the concatenation, slices that stay
READERS = {
    "a convolution": ([node("Conv", "cat wide", "y")], 0),
    "two convolutions": (
        [node("Conv", "cat wide", "a", pads=C), node("Conv", "cat wide1", "b"), node("Add", "a b", "y")],
        0,
    ),
    "two convolutions and the sum itself": (
        [node("Conv", "cat wide", "a", pads=C), node("Add", "a c1", "b"), node("Conv", "cat wide1", "d"),
         node("Add", "b d", "y")],
        0,
    ),
    "a convolution in groups": ([node("Conv", "cat half", "y", group=2)], 2),
    "a convolution and a pool": (
        [node("Conv", "cat wide", "a"), node("AveragePool", "cat", "b", kernel_shape=[3, 3]),
         node("Concat", "a b", "y", axis=1)],
        4,
    ),
    "a pool alone": ([node("AveragePool", "cat", "y", kernel_shape=[3, 3])], 2),
    "nothing but what follows": ([node("Identity", "cat", "y")], 2),
}  # fmt: skip


@pytest.mark.parametrize("case", READERS)
def test_a_kernel_is_cut_in_place_of_what_it_gives(case):
    nodes, slices = READERS[case]
    pair = simplified([*JOINED, *nodes], "salinet")
    assert operators(pair).count("Slice") == slices


def test_what_more_than_slices_read_is_computed_whole():
    """And then cutting it costs less than to compute its parts once more."""
    nodes = [
        *JOINED,
        node("Conv", "x deep", "z", pads=C),
        node("Add", "cat z", "s"),
        node("Conv", "s wide", "y"),
    ]
    assert operators(simplified(nodes, "salinet")).count("Slice") == 2
