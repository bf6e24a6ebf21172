"""What else exporters leave in a graph: sequences, CastLike, a batch reshaped to 1, wiring around nothing."""

import numpy as np
import onnx
import pytest
from layers import assert_close, refusal, reverse, weights
from networks import model, node, picture, run
from onnx import TensorProto, helper, numpy_helper

import revgraph
from revgraph import canonical, reference

X = picture(2, 6, 4, 5)


def net(nodes, shape=("N", 6, 4, 5), y=None, opset=17, **tensors):
    """A network whose output is declared, for onnx infers nothing out of a sequence."""
    x, declared = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), y or [shape[0], *[None] * 3]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, declared)
    held = [numpy_helper.from_array(np.asarray(values), name) for name, values in tensors.items()]
    graph = helper.make_graph(nodes, "g", [x], [output], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def assert_agrees(source, x=X):
    tensors = reference.forward(source, {"x": x})
    p = picture(*tensors["y"].shape, seed=1)
    for variant in "salinet", "desalinet-centre":
        session = revgraph.Session(revgraph.compile(source, variant=variant, at="y"), threads=1)
        trace = session.forward(x)
        assert_close(trace.y, tensors["y"])
        x_hat = reference.reverse(source, tensors, variant=variant, at="y", to="x", p=p)["x"]
        assert_close(session.reverse(trace, p), x_hat)


# ----- Sequences -----


def picks(split, *positions, **attributes):
    """Some of the parts that x is split into, joined again."""
    nodes = [node("SplitToSequence", f"x{split}", "parts", **attributes)]
    nodes += [node("SequenceAt", f"parts at{i}", f"part{i}") for i in positions]
    joined = " ".join(f"part{i}" for i in positions)
    return nodes, joined, {f"at{i}": np.array(i) for i in positions}


SEQUENCES = {
    "parts of two": (" size", {"size": np.array(2)}, {"axis": 1}),
    "a last part that is smaller": (" size", {"size": np.array(4)}, {"axis": 1}),
    "parts of these sizes": (" size", {"size": np.array([1, 3, 2])}, {"axis": 1}),
    "parts of one, kept": ("", {}, {"axis": 1}),
    "a negative axis": (" size", {"size": np.array(3)}, {"axis": -3}),
}


@pytest.mark.parametrize("case", SEQUENCES)
def test_parts_of_a_sequence_are_slices(case):
    split, sizes, attributes = SEQUENCES[case]
    nodes, joined, at = picks(split, 1, 0, **attributes)
    source = net([*nodes, node("Concat", joined, "c", axis=1), node("Relu", "c", "y")], **at, **sizes)
    assert [each.op for each in canonical.canonicalise(source).nodes] == ["Slice", "Slice", "Concat", "Relu"]
    assert_agrees(source)


def test_parts_without_their_axis_are_gathered():
    """As unbind of PyTorch is exported."""
    nodes, joined, at = picks("", 2, 0, axis=1, keepdims=0)
    source = net([*nodes, node("Sub", joined.replace("  ", " "), "y")], y=["N", 4, 5], **at)
    assert [each.op for each in canonical.canonicalise(source).nodes] == ["Gather", "Gather", "Sub"]
    assert_agrees(source)


def test_parts_of_a_size_that_only_the_run_knows():
    nodes, joined, at = picks(" size", 1, 0, axis=2)
    source = net(
        [*nodes, node("Concat", joined, "y", axis=2)], ("N", 2, "H", "W"), size=np.array([2, 2]), **at
    )
    for size in (4, 5), (4, 3):
        assert_agrees(source, picture(2, 2, *size))


def test_a_part_that_only_the_run_chooses_is_refused_by_name():
    nodes = [
        node("SplitToSequence", "x size", "parts", axis=1),
        node("ReduceSum", "x", "total", keepdims=0),
        node("Cast", "total", "at", to=TensorProto.INT64),
        node("SequenceAt", "parts at", "part"),
        node("Relu", "part", "y"),
    ]
    assert "SequenceAt" in " ".join(refusal(net(nodes, size=np.array(3)), at="y"))


# ----- CastLike -----


@pytest.mark.parametrize("like", ["a number", "an activation"])
def test_cast_like_is_a_cast(like):
    nodes = [
        node("Cast", "x", "d", to=TensorProto.DOUBLE),
        node("Tanh", "d", "t"),
        node("CastLike", "t one" if like == "a number" else "t x", "f"),
        node("Relu", "f", "y"),
    ]
    source = net(nodes, one=np.float32(1))
    assert [each.op for each in canonical.canonicalise(source).nodes] == ["Cast", "Tanh", "Cast", "Relu"]
    assert_agrees(source)


def test_a_constant_that_is_cast_like_an_activation():
    """As functions of onnxscript write their constants."""
    nodes = [node("CastLike", "two x", "k"), node("Pow", "x k", "s"), node("Relu", "s", "y")]
    assert_agrees(net(nodes, two=np.array(2)))


# ----- A batch that is free by its name alone -----


HEADS = {
    "[1, -1]": (np.array([1, -1]), 6 * 4 * 5),
    "[1, 120]": (np.array([1, 120]), 6 * 4 * 5),
    "[1, 6, -1]": (np.array([1, 6, -1]), 20),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_network_that_reshapes_to_one_image_is_for_one(head):
    """Exporters fold the batch that they traced with into the target, and declare it free all the same."""
    target, features = HEADS[head]
    nodes = [node("Relu", "x", "r"), node("Reshape", "r target", "f"), node("MatMul", "f w", "y")]
    shape = ["N", 6, 3] if target.size == 3 else ["N", 3]
    source = net(nodes, y=shape, target=target, w=weights(features, 3))
    assert_agrees(source, X[:1])
    pair = revgraph.compile(source, variant="salinet")
    assert pair.forward.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    session = revgraph.Session(pair, threads=1)
    assert session.x_shape == (1, 6, 4, 5)
    with pytest.raises(revgraph.RevgraphError):
        session.forward(X)
    # P projections of one image
    p = picture(4, *run(source, x=X[:1])["y"].shape[1:])
    one = session.forward(X[:1])
    assert_close(session.reverse(one, p)[2:3], session.reverse(one, p[2:3]))


def test_the_batch_of_another_input_stays_free():
    nodes = [
        node("Reshape", "z target", "f"),
        node("ReduceSum", "f", "s", keepdims=0),
        node("Mul", "x s", "y"),
    ]
    source = net(nodes, target=np.array([1, -1]))
    source.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["M", 3]))
    pair = revgraph.compile(source, variant="salinet", input="x")
    dims = [value.type.tensor_type.shape.dim[0] for value in pair.forward.graph.input]
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["N", 1]


# ----- Graphs that nobody optimised -----


def test_an_export_as_it_comes_from_tracing():
    """Functions, constants as nodes, CastLike, identities, a chain of shapes, and no names but tensors'."""
    functional = helper.make_function(
        "local",
        "rectify",
        ["a"],
        ["b"],
        [
            helper.make_node("Constant", [], ["zero"], value_float=0.0),
            helper.make_node("CastLike", ["zero", "a"], ["z"]),
            helper.make_node("Max", ["a", "z"], ["b"]),
        ],
        [helper.make_opsetid("", 18)],
    )
    plain = [
        ("Identity", ["x"], ["i"], {}),
        ("Conv", ["i", "w"], ["c"], {"pads": [1, 1, 1, 1]}),
        ("Shape", ["c"], ["n"], {"start": 0, "end": 1}),
        ("Constant", [], ["rest"], {"value_ints": [-1]}),
        ("Concat", ["n", "rest"], ["target"], {"axis": 0}),
        ("Dropout", ["r"], ["d"], {}),
        ("Reshape", ["d", "target"], ["f"], {"allowzero": 1}),
        ("Gemm", ["f", "v"], ["y"], {}),
    ]
    nodes = [helper.make_node(op, read, made, **attributes) for op, read, made, attributes in plain]
    nodes.insert(2, helper.make_node("rectify", ["c"], ["r"], domain="local"))
    source = net(nodes, y=["N", 3], opset=18, w=weights(3, 6, 3, 3), v=weights(60, 3))
    source.functions.append(functional)
    source.opset_import.append(helper.make_opsetid("local", 1))
    onnx.checker.check_model(source)
    found = [each.op for each in canonical.canonicalise(source).nodes]
    assert found == ["Identity", "Conv", "Max", "Dropout", "Reshape", "Gemm"]
    same = [node("Conv", "x w", "c", pads=[1] * 4), node("Relu", "c", "r"), node("Flatten", "r", "f")]
    native = model(
        [*same, node("Gemm", "f v", "y")], ["N", 6, 4, 5], {"w": weights(3, 6, 3, 3), "v": weights(60, 3)}
    )
    p = picture(2, 3, seed=1)
    for variant in revgraph.VARIANTS:
        assert_close(reverse(source, X, p, variant), reverse(native, X, p, variant))


def test_a_row_that_nothing_reads_leaves_the_batch_free():
    nodes = [node("Relu", "x", "y"), node("Reshape", "y target", "row")]
    source = net(nodes[:1], target=np.array([1, -1]))
    source.graph.node.append(nodes[1])
    source.graph.output.append(helper.make_tensor_value_info("row", TensorProto.FLOAT, [1, None]))
    pair = revgraph.compile(source, variant="salinet", at="y")
    assert pair.forward.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
