"""The cpu target: other operations, the same numbers as portable's."""

import numpy as np
import pytest
from layers import NETS, assert_close, fire, reverse, weights
from networks import model, node, picture

import revgraph
from revgraph.lower import blocks
from revgraph.verify import verify


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Maps of any number of channels are computed as those of sixteen would be."""
    monkeypatch.setattr(blocks, "BLOCK", 1)


def operators(pair):
    return [n.op_type for n in pair.reversed.graph.node]


# ----- What becomes of what -----


def test_convolutions_of_stride_1_are_convolutions_again():
    pair = revgraph.compile(fire(), variant="identity", target="cpu")
    assert operators(pair).count("ConvTranspose") == 1  # the strided one
    assert operators(pair).count("Conv") >= 5


def test_masks_are_added_before_rectifying():
    pair = revgraph.compile(fire(), variant="desalinet", target="cpu")
    kinds = [tap.rpartition("/")[2] for tap in pair.taps]
    # A number that overlapping windows add up is masked before they do and rectified after, and what a pool
    # with Indices gives is in the plain layout, where a product is as cheap.
    assert sorted(kinds) == ["mask", "mask", "penalty", "penalty", "switches", "switches"]


def test_a_concats_slices_are_cut_from_the_kernels():
    assert "Slice" not in operators(revgraph.compile(fire(), variant="salinet", target="cpu"))


def test_a_mask_before_a_pool_is_taken_behind_it():
    pair = revgraph.compile(fire(), variant="salinet", target="cpu", lrn="identity")
    shapes = {
        o.name: [d.dim_value for d in o.type.tensor_type.shape.dim[2:]] for o in pair.forward.graph.output
    }
    assert shapes["p1/mask"] == [8, 7]
    assert shapes["p2/mask"] == [3, 3]
    assert "r1/mask" not in shapes
    # LRN by BP stands between, and its image is not zero where the mask is shut.
    pair = revgraph.compile(fire(), variant="salinet", target="cpu")
    assert "r1/mask" in pair.taps


def test_scales_are_folded_into_kernels():
    tensors = {name: np.linspace(0.5, 1.5, 5, dtype=np.float32) for name in "gbmv"} | {
        "w": weights(5, 3, 3, 3)
    }
    nodes = [node("Conv", "x w", "c"), node("BatchNormalization", "c g b m v", "n"), node("Mul", "n k", "y")]
    net = model(
        nodes, ["N", 3, 6, 6], tensors | {"k": np.linspace(-1, 2, 5, dtype=np.float32)[:, None, None]}
    )
    assert operators(revgraph.compile(net, variant="salinet", target="cpu")) == ["Conv", "Identity"]
    x, p = picture(1, 3, 6, 6), picture(1, 5, 4, 4)
    assert_close(reverse(net, x, p, target="cpu"), reverse(net, x, p))


@pytest.mark.parametrize("shape", [(1, 1, 6, 1), (6, 1), (1, 6, 1, 1), (6, 1, 1), (1, 1, 1, 6)], ids=str)
def test_a_scale_is_folded_only_where_it_is_one_of_channels(shape):
    """As many rows, or columns, as the convolution has channels."""
    tensors = {"w": weights(6, 3, 3, 3), "k": np.linspace(0.5, 1.5, 6, dtype=np.float32).reshape(shape)}
    net = model([node("Conv", "x w", "c"), node("Mul", "c k", "y")], ["N", 3, 8, 8], tensors)
    assert ("Mul" in operators(revgraph.compile(net, variant="salinet", target="cpu"))) == (6 in shape[-2:])
    x, p = picture(1, 3, 8, 8), picture(1, 6, 6, 6)
    assert_close(reverse(net, x, p, target="cpu"), reverse(net, x, p))


@pytest.mark.parametrize("size", [8, "S"])
@pytest.mark.parametrize("op", ["GlobalMaxPool", "ReduceMax"])
def test_a_mask_that_spreads_a_maximum_is_no_penalty(op, size):
    """Rectify(Gate(q, r)) with q one number per plane: the sum that takes its place would be as small."""
    axes = {"axes": [2, 3]} if op == "ReduceMax" else {}
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node(op, "r", "y", **axes)]
    net = model(nodes, ["N", 3, size, size], {"w": weights(6, 3, 3, 3)})
    x, p = picture(2, 3, 8, 8), picture(2, 6, 1, 1)
    for variant in "deconvnet", "desalinet":
        assert_close(reverse(net, x, p, variant, target="cpu"), reverse(net, x, p, variant))


def test_a_kernel_that_two_convolutions_share_is_flipped_for_each():
    """In groups its channels lie otherwise; and a weight may be called as a flipped one would be."""
    nodes = [
        node("Conv", "x w", "a", pads=[1] * 4),
        node("Concat", "x x", "xx", axis=1),
        node("Conv", "xx w", "b", pads=[1] * 4, group=2),
        node("Add", "a b", "s"),
        node("Conv", "s w/flipped", "y", strides=[2, 2]),
    ]
    tensors = {"w": weights(8, 4, 3, 3), "w/flipped": weights(4, 8, 3, 3)}
    net = model(nodes, ["N", 4, 9, 9], tensors)
    x, p = picture(1, 4, 9, 9), picture(1, 4, 4, 4)
    assert_close(reverse(net, x, p, target="cpu"), reverse(net, x, p))


def test_tiny_and_huge_units_are_masked_like_others():
    """Down to 3.3e-20, below which DeSaliNet counts a unit as zero."""
    net = model(
        [node("Conv", "x w", "c"), node("Relu", "c", "y")], ["N", 1, 1, 6], {"w": weights(1, 1, 1, 1) * 0 + 1}
    )
    x = np.array([0, 1e-19, -1e-19, 1e30, -1e30, 1], np.float32).reshape(1, 1, 1, 6)
    x_hat = reverse(net, x, np.ones_like(x), "desalinet", target="cpu")
    np.testing.assert_array_equal(x_hat.ravel(), [0, 1, 0, 1, 0, 1])


def test_denormal_units_are_open_in_part():
    """Of SaliNet's, from 3.3e-39 down: no float32 is steep enough. Packed, or portable, they are whole."""
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "y")]
    net = model(nodes, ["N", 1, 1, 5], {"w": weights(1, 1, 1, 1) * 0 + 1})
    x = np.array([0, 1e-40, 3.4e-39, 1e-30, -1e-40], np.float32).reshape(1, 1, 1, 5)
    x_hat = reverse(net, x, np.ones_like(x), "salinet", target="cpu")
    np.testing.assert_allclose(x_hat.ravel(), [0, 0.03, 1, 1, 0], rtol=1e-4)
    for other in {"target": "portable"}, {"target": "cpu", "bottleneck": "packed"}:
        x_hat = reverse(net, x, np.ones_like(x), "salinet", **other)
        np.testing.assert_array_equal(x_hat.ravel(), [0, 1, 1, 1, 0])


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
@pytest.mark.parametrize("name", NETS)
def test_a_packed_bottleneck_gives_the_same_numbers(name, variant):
    net = NETS[name]()
    x = picture(2, *(dim.dim_value for dim in net.graph.input[0].type.tensor_type.shape.dim[1:]))
    pair = revgraph.compile(net, variant=variant, target="cpu", bottleneck="packed")
    session = revgraph.Session(pair)
    trace = session.forward(x)
    kinds = {name: value.numpy().dtype for name, value in trace.taps.items() if not name.endswith("value")}
    assert set(kinds.values()) <= {np.dtype(np.uint8)}
    p = picture(*trace.y.shape, seed=1)
    assert_close(session.reverse(trace, p), reverse(net, x, p, variant))
    assert [check for check in verify(pair, net) if check.passed is False] == []
