"""What the cpu target takes to be in blocks of channels, and what it brings into them."""

import numpy as np
import onnx
import pytest
from layers import assert_close, reverse, weights
from networks import model, node, picture

import revgraph
from revgraph.lower import blocks

C = [1, 1, 1, 1]
WINDOW = {"kernel_shape": [3, 3], "pads": C}
POSITIVE = np.linspace(0.5, 1.5, 6, dtype=np.float32)
TENSORS = {
    "w": weights(6, 4, 3, 3),
    "w2": weights(6, 4, 3, 3)[::-1],
    "wg": weights(6, 2, 3, 3),
    "wd": weights(6, 1, 3, 3),
    "v": weights(5, 6, 3, 3),
    "v2": weights(5, 12, 3, 3),
    "sq": weights(4, 4, 3, 3),
    "k": POSITIVE[:, None, None],
    "g": POSITIVE,
    "which": np.arange(6)[:, None, None] % 2 == 0,
}
CONV, OTHER = node("Conv", "x w", "c", pads=C), node("Conv", "x w2", "d", pads=C)
GROUPS = node("Conv", "x wg", "g2", pads=C, group=2)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Maps of any number of channels are computed as those of sixteen would be."""
    monkeypatch.setattr(blocks, "BLOCK", 1)


def net(nodes):
    return model(nodes, ["N", 4, 8, 7], TENSORS, outputs=["y"])


def checked(nodes, variant):
    """The pair for a CPU, whose numbers are portable's."""
    source, x = net(nodes), picture(2, 4, 8, 7)
    p = picture(*revgraph.Session(source, variant=variant, threads=1).forward(x).y.shape, seed=1)
    assert_close(reverse(source, x, p, variant, target="cpu"), reverse(source, x, p, variant))
    return revgraph.compile(source, variant=variant, target="cpu")


def ones(graph: onnx.GraphProto) -> list[float]:
    """The factors of depthwise convolutions that only bring a tensor into blocks."""
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kernels = (held[n.input[1]] for n in graph.node if n.op_type == "Conv" and n.input[1] in held)
    return [k.flat[0] for k in kernels if k.shape[1:] == (1, 1, 1) and (k == k.flat[0]).all()]


# id: nodes from x (N, 4, 8, 7) to t, whose rectified self the next convolution reads; whether t is in blocks
LAYOUTS = {
    "a convolution": ([node("Conv", "x w", "t", pads=C)], True),
    "a convolution in groups": ([node("Conv", "x wg", "t", pads=C, group=2)], False),
    "a depthwise convolution": ([CONV, node("Conv", "c wd", "t", pads=C, group=6)], True),
    "an average": ([CONV, node("AveragePool", "c", "t", **WINDOW)], True),
    "a maximum": ([CONV, node("MaxPool", "c", "t", **WINDOW)], True),
    "a maximum of what is not": ([GROUPS, node("MaxPool", "g2", "t", **WINDOW)], False),
    "a sum": ([CONV, OTHER, node("Add", "c d", "t")], True),
    "a sum of two and one": ([CONV, OTHER, node("Sum", "c d c", "t")], True),
    "a sum with what is not": ([CONV, GROUPS, node("Add", "g2 c", "t")], False),
    "a sum with what is not, rectified": (
        [CONV, GROUPS, node("Relu", "c", "e"), node("Add", "g2 e", "t")], False
    ),
    "a difference": ([CONV, OTHER, node("Sub", "c d", "t")], True),
    "a product": ([CONV, OTHER, node("Mul", "c d", "t")], True),
    "a product by channel": ([CONV, node("Mul", "c k", "t")], True),
    "a normalisation": ([CONV, node("BatchNormalization", "c g g g g", "t")], True),
    "a concatenation": ([CONV, OTHER, node("Concat", "c d", "e", axis=1),
                         node("AveragePool", "e", "t", **WINDOW)], True),
    "what does nothing": ([CONV, node("Identity", "c", "e"), node("Dropout", "e", "t")], True),
    "what is computed one by one": ([CONV, node("Sigmoid", "c", "t")], False),
    "a quotient": ([CONV, node("Div", "c k", "t")], False),
}  # fmt: skip


@pytest.mark.parametrize("case", LAYOUTS)
def test_units_in_blocks_are_shut_by_a_sum(case):
    """Elsewhere by a product: their tap is a mask, and no penalty."""
    nodes, in_blocks = LAYOUTS[case]
    kernel = "v2" if case == "a concatenation" else "v"
    source = [*nodes, node("Relu", "t", "r"), node("Conv", f"r {kernel}", "y")]
    pair = checked(source, "desalinet-centre")
    assert ("r/penalty" in pair.taps, "r/mask" in pair.taps) == (in_blocks, not in_blocks)


@pytest.mark.parametrize(("op", "dtype"), [("Conv", np.float32), ("Sigmoid", bool)])
def test_masks_are_numbers_in_blocks(op, dtype):
    layer = node("Conv", "x w", "t", pads=C) if op == "Conv" else node("Sigmoid", "x", "t")
    source = model([layer, node("Relu", "t", "y")], ["N", 4, 8, 7], TENSORS)
    pair = revgraph.compile(source, variant="salinet", target="cpu")
    assert ("Cast" in [n.op_type for n in pair.reversed.graph.node]) == (op == "Sigmoid")
    trace = revgraph.Session(pair, threads=1).forward(picture(2, 4, 8, 7))
    (tap,) = (tap.numpy() for name, tap in trace.taps.items() if name == "y/mask")
    assert tap.dtype == dtype
    np.testing.assert_array_equal(tap.astype(bool), trace.y > 0)


# ----- What is brought into blocks -----

HALVES = {"kernel_shape": [2, 2], "strides": [2, 2]}
BLOCKS = [node("Conv", "x sq", "b", pads=C), node("AveragePool", "b", "c", **HALVES)]
PLAIN = [node("MaxPool", "x", "m", **HALVES),
         node("MaxPool", "x", "n", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])]  # fmt: skip
# id: nodes on x, factors of the convolutions that bring a term of x_hat into blocks
SUMS = {
    "one in blocks": ([*BLOCKS, node("Identity", "c", "y")], []),
    "one of two": ([*BLOCKS, PLAIN[0], node("Add", "c m", "y")], [1]),
    "one of three": ([*BLOCKS, *PLAIN, node("Sum", "m c n", "y")], [1, 1]),
    "none of two": ([*PLAIN, node("Add", "m n", "y")], []),
}


@pytest.mark.parametrize("case", SUMS)
def test_plain_terms_come_in_through_convolutions(case):
    nodes, factors = SUMS[case]
    assert ones(checked(nodes, "identity").reversed.graph) == factors


def test_a_product_of_a_plain_signal_and_a_tap():
    """x_hat of either factor is p times the other, and p is in the plain layout."""
    pair = checked([CONV, OTHER, node("Mul", "c d", "y")], "identity")
    assert ones(pair.reversed.graph) == [1, 1]


def test_a_difference_is_a_sum_with_what_is_negated():
    nodes = [CONV, OTHER, node("Where", "which c d", "t"), node("Conv", "t v", "y")]
    pair = checked(nodes, "identity")
    assert "Sub" not in [n.op_type for n in pair.reversed.graph.node]
    assert ones(pair.reversed.graph) == [-1]


@pytest.mark.parametrize(
    ("parts", "axis", "factors"),
    [("e m", 1, [1]), ("m e m", 1, [1, 1]), ("e e", 1, []), ("m m", 1, []), ("e m", 2, [])],
)
def test_plain_parts_of_a_concatenation_come_in(parts, axis, factors):
    """A pool that gives Indices is in the plain layout."""
    nodes = [CONV, node("MaxPool", "c", "m", **HALVES), node("AveragePool", "c", "e", **HALVES),
             node("Concat", parts, "cat", axis=axis), node("Identity", "cat", "y")]  # fmt: skip
    assert ones(checked(nodes, "deconvnet").forward.graph) == factors
