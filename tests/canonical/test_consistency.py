"""Contradictions that ONNX's checker lets through, each found by a fuzzer where a rule stumbled on it."""

import networks
import numpy as np
import onnx
import pytest
from networks import node
from onnx import helper, numpy_helper

import revgraph
from revgraph.errors import RevgraphError


def unchecked(nodes, x=("N", 3, 8, 8), weights=None, rank=4, opset=17):
    """A network whose output is what the last node gives, of any size: ONNX infers nothing here."""
    name = nodes[-1].output[0]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * rank)]
    begins = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x)]
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(nodes, "net", begins, ends, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def refusal(net, **options):
    with pytest.raises(RevgraphError) as raised:
        revgraph.compile(net, **{"variant": "desalinet"} | options)
    return raised.value.why


@pytest.mark.parametrize(
    ("last", "weights", "why"),
    [
        (
            node("Conv", "x w", "y", kernel_shape=[1, 1]),
            {"w": np.ones((3, 3, 1), np.float32)},
            "weights (3, 3, 1)",
        ),
        (node("MaxPool", "x", "y", kernel_shape=[2, 2], strides=[1, 0]), {}, "strides [1, 0]"),
        (
            node("MaxPool", "x", "y", kernel_shape=[2, 2], dilations=[1] * 3, ceil_mode=1),
            {},
            "lists for different numbers of axes",
        ),
        (node("Conv", "x w", "y", group=0), {"w": np.ones((3, 3, 1, 1), np.float32)}, "group 0"),
        (node("ReduceSum", "x w", "y", keepdims=-1), {"w": np.array([2, 3])}, "keepdims -1"),
        (node("Pad", "x w", "y", mode="SAME_UPPER"), {"w": np.zeros(8, np.int64)}, "mode b'SAME_UPPER'"),
        (
            node("Resize", "x  w", "y", nearest_mode=""),
            {"w": np.ones(4, np.float32)},
            "nearest_mode b''",
        ),
        (node("Resize", "x  w", "y"), {"w": np.ones((4, 1), np.float32)}, "no list but (4, 1)"),
        (node("Softmax", "x", "y", axis=4), {}, "axis"),
        (node("Clip", "x w", "y"), {"w": np.zeros(3, np.float32)}, "a bound 'w' of shape (3,)"),
    ],
)
def test_a_node_that_contradicts_itself_or_its_input_is_refused(last, weights, why):
    # Before it a Reshape, of whose result ONNX's inference knows the rank alone.
    weights = weights | {"s": np.array([0, 3, 8, 8])}
    for nodes in ([last], [node("Reshape", "x s", "r"), _reading(last, "r")]):
        assert why in refusal(unchecked(nodes, weights=weights))


def _reading(last, name):
    changed = onnx.NodeProto()
    changed.CopyFrom(last)
    changed.input[0] = name
    return changed


def test_a_transpose_of_fewer_axes_than_there_are():
    nodes = [node("Transpose", "x", "t", perm=[0, 1, 2]), node("Relu", "t", "y")]
    assert "perm [0, 1, 2]" in refusal(unchecked(nodes, rank=3))


def test_a_pool_with_ceil_mode_of_more_axes_than_there_are():
    pool = node("MaxPool", "x", "y", kernel_shape=[2] * 3, strides=[2] * 3, pads=[1] * 6, ceil_mode=1)
    assert refusal(unchecked([pool], (1, 3, 8, 8), rank=5))


def test_outputs_of_a_split_along_an_axis_that_there_is_not():
    split = helper.make_node("Split", ["k"], ["a", "b"], "split", axis=2**40)
    nodes = [split, node("Relu", "x", "y")]
    assert "axis" in refusal(unchecked(nodes, weights={"k": np.ones(4, np.float32)}))


def test_a_global_max_pool_of_who_knows_what():
    """Of an unknown shape it is left as it is, and so not reversed."""
    nodes = [node("Reshape", "x s", "r"), node("GlobalMaxPool", "r", "y")]
    net = unchecked(nodes, weights={"half": np.array([0])})
    net.graph.input.append(helper.make_tensor_value_info("s", onnx.TensorProto.INT64, [None]))
    assert "is not known" in refusal(net, input="x")
    pool = node("GlobalAveragePool", "r", "y")
    net.graph.node[1].CopyFrom(pool)
    assert refusal(net, input="x", precision="fp16", target="cuda")


@pytest.mark.parametrize("op", ["ReduceSum", "Squeeze"])
def test_an_axis_given_as_a_number_alone_is_one(op):
    nodes = [node("Relu", "x", "r"), node(op, "r w", "y")]
    net = unchecked(nodes, ("N", 3, 1, 8), {"w": np.array(2)}, rank=4 if op == "ReduceSum" else 3)
    assert revgraph.compile(net, variant="desalinet").at == "y"


@pytest.mark.parametrize(("op", "count"), [("InstanceNormalization", 2), ("BatchNormalization", 4)])
def test_norms_of_another_number_of_channels_are_refused(op, count):
    names = "abcd"[:count]
    weights = {name: np.ones(3 if name == "a" else 2, np.float32) for name in names}
    # What Reshape gives here has a known rank, and channels that ONNX's inference does not compare.
    nodes = [node(op, f"x {' '.join(names)}", "y")]
    assert refusal(unchecked(nodes, ("N", 3, 8, 8), weights))
    nodes = [node("Expand", "x s", "r"), node(op, f"r {' '.join(names)}", "y")]
    assert refusal(unchecked(nodes, ("N", "C", 8, 8), weights | {"s": np.array([1, 3, 1, 1])}))


@pytest.mark.parametrize("size", [-3, 2**50])
def test_sizes_that_nothing_has_are_refused(size):
    assert "absurd shape" in refusal(unchecked([node("Relu", "x", "y")], ("N", 3, size, 8)))


def test_an_upsampling_of_opset_10_says_its_mode_or_does_not():
    nodes = [node("Resize", "x w", "y")]
    weights = {"w": np.array([1, 1, 2, 2], np.float32)}
    assert revgraph.compile(unchecked(nodes, weights=weights, opset=10), variant="desalinet").at == "y"


def test_two_opsets_of_onnx_are_refused():
    net = networks.cnn()
    net.opset_import.append(helper.make_opsetid("ai.onnx", 2))
    assert refusal(net) == "its opset is 2 and 17"


def test_a_model_without_outputs_is_refused():
    net = networks.cnn()
    del net.graph.output[:]
    assert refusal(net) == "it has no outputs"


def test_weights_within_a_branch_are_read_too():
    """Where the branch is kept, nothing else did before a rule."""
    inner = node("Add", "x k", "inner")
    ends = [onnx.ValueInfoProto(name="inner")]
    parts = [helper.make_graph([inner], name, [], ends) for name in ("then", "else")]
    for part in parts:
        part.initializer.add(name="k", data_type=1, dims=[3], raw_data=bytes(16))
    branch = helper.make_node("If", ["go"], ["b"], "b", then_branch=parts[0], else_branch=parts[1])
    net = unchecked([node("Relu", "x", "r"), branch, node("Add", "r b", "y")])
    net.graph.input.append(helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []))
    assert refusal(net, input="x")


def test_a_layer_that_only_compares_with_x_has_no_way_back():
    nodes = [node("Greater", "x k", "g"), node("Where", "g k k", "w"), node("Relu", "w", "y")]
    net = unchecked(nodes, weights={"k": np.zeros((1, 3, 8, 8), np.float32)})
    assert "sizes and comparisons alone" in refusal(net)


def test_a_head_of_weights_for_other_maps_does_not_slide():
    nodes = [node("GlobalAveragePool", "x", "g"), node("Flatten", "g", "f"), node("Expand", "f e", "k")]
    nodes.append(node("Gemm", "f w", "y"))
    weights = {"w": np.ones((5, 7), np.float32), "e": np.array([1, 3])}
    assert refusal(unchecked(nodes, weights=weights, rank=2), fully_convolutional=True)


def test_a_head_that_forks_and_joins_again_slides_in_time():
    """Sixty sums of a tensor and itself have 2^60 ways through them."""
    nodes = [node("GlobalAveragePool", "x", "g"), node("Flatten", "g", "y0")]
    nodes += [node("Add", f"y{i} y{i}", f"y{i + 1}") for i in range(60)]
    net = unchecked(nodes, rank=2)
    assert revgraph.compile(net, variant="desalinet", fully_convolutional=True).at == "y60"


@pytest.mark.parametrize("mode", ["SAME_UPPER", "VALID"])
def test_a_convolution_of_pads_and_auto_pad_is_refused_as_by_onnxruntime(mode):
    """ONNX's inference reads the pads, and auto_pad says otherwise."""
    conv = node("Conv", "x w", "y", auto_pad=mode, pads=[1, 0, 0, 0], kernel_shape=[3, 3])
    net = unchecked([conv], (1, 3, 9, 8), {"w": np.ones((2, 3, 3, 3), np.float32)})
    assert refusal(net) == "node 'y' (Conv) has pads and auto_pad"
