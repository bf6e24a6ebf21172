"""The passes that make a model fit the rules, and leave alone what it computes."""

import contextlib
import re
import time
import tracemalloc

import numpy as np
import onnx
import pytest
from networks import cnn, he, model, node, picture, run
from onnx import helper, numpy_helper

import revgraph
from revgraph import canonical
from revgraph.canonical import on_graph
from revgraph.errors import RevgraphError
from revgraph.graph import gs

X = picture(2, 3, 8, 8)


def x_hat(net, feed=X, **options):
    """x_hat of p = 1, and the forward file's outputs without the taps."""
    pair = revgraph.compile(net, variant="desalinet", **options)
    session = revgraph.Session(pair)
    trace = session.forward(feed)
    return session.reverse(trace, np.ones_like(trace.y)), trace.outputs


def check_same_function(net, feed=X):
    """The forward file's outputs are the model's own, in their order."""
    expected, (_, found) = run(net, x=feed), x_hat(net, feed)
    assert list(found)[: len(expected)] == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


def operators(net):
    return [node.op for node in canonical.canonicalise(net).nodes]


# ----- Names -----


def test_unnamed_nodes_are_named_after_their_output():
    net = cnn()
    for each in net.graph.node:
        each.name = ""
    assert {n.name for n in canonical.canonicalise(net).nodes} == {n.name for n in cnn().graph.node}


def test_names_that_repeat_are_told_apart():
    net = cnn()
    for each in net.graph.node:
        each.name = "same"
    names = [n.name for n in canonical.canonicalise(net).nodes]
    assert len(set(names)) == len(names)
    assert "same" in names
    np.testing.assert_allclose(x_hat(net)[0], x_hat(cnn())[0], rtol=1e-6)


@pytest.mark.parametrize("kind", ["mask", "switches", "value", "size", "slope"])
def test_a_tensor_that_is_called_like_a_tap_is_in_nobodys_way(kind):
    net = cnn()
    for each in net.graph.node:  # relu1 becomes relu1/<kind>, the name of its own tap
        for names in (each.input, each.output):
            names[:] = [f"relu1/{kind}" if name == "relu1" else name for name in names]
    plain, _ = x_hat(cnn())
    np.testing.assert_allclose(x_hat(net)[0], plain, rtol=1e-6)
    check_same_function(net)


@pytest.mark.parametrize("name", ["p", "x_hat"])
def test_inner_tensors_with_reserved_names_are_renamed(name):
    net = cnn()
    for each in net.graph.node:
        for names in (each.input, each.output):
            names[:] = [name if found == "pool1" else found for found in names]
    np.testing.assert_allclose(x_hat(net)[0], x_hat(cnn())[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["p", "x_hat"])
def test_a_weight_with_a_reserved_name_is_renamed(name):
    net = cnn()
    next(t for t in net.graph.initializer if t.name == "w2").name = name
    net.graph.node[3].input[1] = name
    np.testing.assert_allclose(x_hat(net)[0], x_hat(cnn())[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["p", "x_hat"])
@pytest.mark.parametrize("where", ["input", "output"])
def test_inputs_and_outputs_with_reserved_names_are_refused(name, where):
    net = cnn()
    getattr(net.graph, where)[0].name = name
    if where == "input":
        net.graph.node[0].input[0] = name
    else:
        net.graph.node[-1].output[0] = name
    with pytest.raises(RevgraphError, match=f"input or output called '{name}'.*rename it"):
        revgraph.compile(net, variant="desalinet")


# ----- Versions -----


def test_initializers_listed_as_inputs_are_no_inputs():
    net = cnn(opset=9)
    net.ir_version = 3
    for tensor in net.graph.initializer:
        net.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    assert [x.name for x in canonical.canonicalise(net).inputs] == ["x"]
    pair = revgraph.compile(net, variant="desalinet")
    assert pair.forward.ir_version in range(8, 11)
    assert [x.name for x in pair.forward.graph.input] == ["x"]
    check_same_function(net)


@pytest.mark.parametrize("opset", range(9, 23))
def test_the_opset_changes_nothing(opset):
    net = cnn(opset=opset, ir_version=10 if opset > 20 else 8)
    pair = revgraph.compile(net, variant="desalinet")
    for graph in (pair.forward, pair.reversed):
        assert [(entry.domain, 17 <= entry.version <= 21) for entry in graph.opset_import] == [("", True)]
        assert graph.ir_version in range(8, 11)
        onnx.checker.check_model(graph, full_check=True)
    found, outputs = x_hat(net)
    expected, reference = x_hat(cnn())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs["prob"], reference["prob"], rtol=1e-5)


@pytest.mark.parametrize("version", [0, 6, onnx.defs.onnx_opset_version() + 1, 10**6])
def test_an_opset_out_of_reach_is_refused(version):
    net = cnn()
    net.opset_import[0].version = version
    with pytest.raises(RevgraphError, match=r"opset"):
        canonical.canonicalise(net)


def test_onnxs_own_domain_has_two_spellings():
    net = cnn()
    net.opset_import[0].domain = "ai.onnx"
    for each in net.graph.node:
        each.domain = "ai.onnx"
    check_same_function(net)


# ----- Functions, and operators that nobody knows -----


def with_function(body, domain="mine"):
    """cnn() with relu1 computed by a model-local function."""
    net = cnn()
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("other", 1)]
    net.functions.append(helper.make_function(domain, "Rectifier", ["a"], ["b"], body, opset))
    if domain:
        net.opset_import.append(helper.make_opsetid(domain, 1))
    net.opset_import.append(helper.make_opsetid("other", 1))
    net.graph.node[1].CopyFrom(helper.make_node("Rectifier", ["conv1"], ["relu1"], "relu1", domain=domain))
    return net


def test_model_local_functions_are_inlined():
    net = with_function([helper.make_node("Relu", ["a"], ["b"])])
    assert "Rectifier" not in operators(net)
    assert operators(net).count("Relu") == 2
    np.testing.assert_allclose(x_hat(net)[0], x_hat(cnn())[0], rtol=1e-6)
    pair = revgraph.compile(net, variant="desalinet")
    assert not pair.forward.functions
    assert [entry.domain for entry in pair.forward.opset_import] == [""]


def test_an_operator_of_another_domain_inside_a_function_is_refused_by_name():
    net = with_function([helper.make_node("Fancy", ["a"], ["b"], domain="other")])
    with pytest.raises(RevgraphError, match=r"other\.Fancy.*'other' is not ONNX's own domain"):
        canonical.canonicalise(net)


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.ml", "mine"])
def test_another_domain_is_refused_by_name(domain):
    net = cnn()
    net.graph.node[1].domain, net.graph.node[1].op_type = domain, "Fancy"
    net.opset_import.append(helper.make_opsetid(domain, 1))
    wanted = rf"node 'relu1' \({re.escape(domain)}\.Fancy\): '{re.escape(domain)}' is not ONNX's own domain"
    with pytest.raises(RevgraphError, match=wanted):
        canonical.canonicalise(net)


@pytest.mark.parametrize("named", [True, False])
def test_an_unknown_operator_is_refused_by_name(named):
    net = cnn()
    net.graph.node[1].op_type = "Fancy"
    net.graph.node[1].name = "relu1" if named else ""
    with pytest.raises(RevgraphError, match=r"node 'relu1' \(Fancy\): ONNX has no such operator"):
        canonical.canonicalise(net)


def test_another_domain_inside_a_branch_is_refused_by_name():
    branch = helper.make_graph(
        [helper.make_node("Fancy", [], ["b"], domain="other")],
        "branch",
        [],
        [helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [1, 1, 1, 1])],
    )
    add = [node("If", "c", "b", then_branch=branch, else_branch=branch), node("Add", "x b", "y")]
    net = model(add, [1, 3, 8, 8], {"c": np.array(True)})
    net.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, 8, 8]))
    net.opset_import.append(helper.make_opsetid("other", 1))
    with pytest.raises(RevgraphError, match=r"Fancy.*'other' is not ONNX's own domain"):
        revgraph.compile(net, variant="desalinet")


def test_an_unknown_operator_with_no_name_and_no_output_is_refused():
    net = cnn()
    net.graph.node.append(onnx.NodeProto(op_type="Fancy", input=["x"]))
    with pytest.raises(RevgraphError, match="Fancy"):
        canonical.canonicalise(net)


def test_an_operator_without_a_rule_is_refused_with_the_list_of_those_known():
    net = model([node("Hardmax", "x", "y", axis=1), node("Relu", "y", "z")], [1, 3, 8, 8])
    wanted = r"cannot reverse node 'y'.*no rule for Hardmax \(rules exist for Abs, Add, .*Relu"
    with pytest.raises(RevgraphError, match=wanted):
        revgraph.compile(net, variant="desalinet")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda g: g.node[0].input.__setitem__(0, "relu2"), None),  # a cycle
        (lambda g: g.node[1].input.__setitem__(0, "nowhere"), "nowhere"),
        (lambda g: g.node[1].output.__setitem__(0, "conv1"), "conv1"),  # written twice
        (lambda g: g.node[1].input.append("x"), "Relu"),
        (lambda g: g.node[0].attribute.append(helper.make_attribute("colour", "red")), "colour"),
        (lambda g: g.node[3].input.__setitem__(1, "w1"), None),  # shapes that do not fit
        (lambda g: g.initializer[1].ClearField("raw_data"), None),
        (lambda g: g.output[0].ClearField("name"), None),
    ],
)
def test_an_invalid_model_is_refused_in_one_line(change, why):
    net = cnn()
    change(net.graph)
    with pytest.raises(RevgraphError, match=why) as raised:
        revgraph.compile(net, variant="desalinet")
    assert "\n" not in str(raised.value)


def test_a_cycle_is_refused_even_past_the_checker(monkeypatch):
    net = cnn()
    net.graph.node[0].input[0] = "relu2"
    monkeypatch.setattr(onnx.checker, "check_model", lambda *args, **kwargs: None)
    with pytest.raises(RevgraphError, match="not valid ONNX"):
        canonical.canonicalise(net)


# ----- Constants -----


def test_constant_nodes_become_weights():
    net, plain = cnn(), cnn()
    tensors = list(net.graph.initializer)
    del net.graph.initializer[:]
    for tensor in reversed(tensors):
        net.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    assert operators(net) == operators(plain)
    np.testing.assert_allclose(x_hat(net)[0], x_hat(plain)[0], rtol=1e-6)


def flattened_by_arithmetic(batch, height):
    """x.view(x.size(0), -1) as exporters write it: Shape, Gather, Unsqueeze, Concat, Reshape."""
    rng = np.random.default_rng(3)
    constants = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1])}
    nodes = [
        node("Conv", "x w", "conv"),
        node("Relu", "conv", "relu"),
        node("Shape", "relu", "shape"),
        node("Gather", "shape zero", "n"),
        node("Unsqueeze", "n axis", "rows"),
        node("Concat", "rows rest", "target", axis=0),
        node("Reshape", "relu target", "flat"),
        node("Gemm", "flat v", "y"),
    ]
    weights = {"w": he(rng, 4, 3, 3, 3), "v": he(rng, 4 * 6 * 6, 5), **constants}
    return model(nodes, [batch, 3, height, height], weights)


@pytest.mark.parametrize("batch", [2, "N"])
def test_the_arithmetic_of_shapes_does_not_hinder(batch):
    net = flattened_by_arithmetic(batch, 8)
    if batch == 2:
        assert operators(net) == ["Conv", "Relu", "Reshape", "Gemm"]
    check_same_function(net)
    found, _ = x_hat(net)
    assert found.shape == X.shape
    assert found.any()


def test_a_constant_that_is_an_output_stays_one():
    nodes = [node("Relu", "x", "y"), node("Identity", "c", "z")]
    check_same_function(model(nodes, [2, 3, 8, 8], {"c": np.ones(2, np.float32)}, ["y", "z"]))


ABSURD = {
    "ConstantOfShape": ("a", {"a": np.array([2**20, 2**22])}),
    "Expand": ("a b", {"a": np.ones((1, 1), np.float32), "b": np.array([2**20, 2**22])}),
    "Expand, both ways": ("a b", {"a": np.ones((2**16, 1), np.float32), "b": np.array([1, 2**16])}),
    "Range": ("a b c", {"a": np.float32(0), "b": np.float32(1e15), "c": np.float32(1)}),
    "Range to infinity": ("a b c", {"a": np.float32(0), "b": np.float32(np.inf), "c": np.float32(1)}),
    "Tile": ("a b", {"a": np.ones((1, 1), np.float32), "b": np.array([2**20, 2**22])}),
    "Add": ("a b", {"a": np.ones((2**20, 1), np.float32), "b": np.ones((1, 2**20), np.float32)}),
    "Where": (
        "c a b",
        {"a": np.ones((2**16, 1), np.float32), "b": np.ones((1, 2**16), np.float32), "c": np.array(True)},
    ),
    "Gather": ("a b", {"a": np.ones((4, 2**14), np.float32), "b": np.zeros(2**16, np.int64)}),
}


@pytest.mark.parametrize("case", ABSURD)
def test_absurd_constants_are_not_made(case):
    """Not one of these is computed from the input, and each would take gigabytes."""
    feeds, weights = ABSURD[case]
    nodes = [node(case.split()[0].strip(","), feeds, "big"), node("ReduceMax", "big", "top", keepdims=0)]
    net = model([*nodes, node("Add", "x top", "y")], [1, 3, 8, 8], weights)
    tracemalloc.start()
    try:
        canonical.canonicalise(net)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**26


def test_many_large_constants_are_not_all_made(monkeypatch):
    """Each of them is within bounds."""
    monkeypatch.setattr(on_graph, "MAX_FOLDED", 2**14)
    nodes = [node("Expand", "one wide", f"e{i}") for i in range(9)]
    nodes += [node("Sum", " ".join(f"e{i}" for i in range(9)), "sum"), node("Add", "x sum", "y")]
    net = model(nodes, [1, 1, 64, 64], {"one": np.ones((1, 1), np.float32), "wide": np.array([64, 64])})
    assert operators(net).count("Expand") == 9 - 4
    check_same_function(net, picture(1, 1, 64, 64))


def test_a_constant_of_many_parts_is_as_large_as_all_of_them(monkeypatch):
    monkeypatch.setattr(on_graph, "MAX_FOLDED", 2**14)
    nodes = [node("Concat", " ".join(["part"] * 7), "whole", axis=0), node("Add", "x whole", "y")]
    net = model(nodes, [1, 1, 448, 64], {"part": np.ones((64, 64), np.float32)})
    assert operators(net) == ["Concat", "Add"]


def test_lists_that_grow_without_end_are_not_followed():
    """Forty times twice as long, out of sizes that only the run knows: inference would follow each number."""
    doubled = [node("Concat", f"c{i} c{i}", f"c{i + 1}", axis=0) for i in range(40)]
    ends = [node("ReduceMin", "c40", "least", keepdims=0), node("Cast", "least", "top", to=1)]
    net = model([node("Shape", "x", "c0"), node("Identity", "x", "y")], ["N", 3, 8, 8])
    del net.graph.node[1:]
    net.graph.node.extend([*doubled, *ends, node("Add", "x top", "y")])
    start = time.process_time()
    with contextlib.suppress(RevgraphError):  # onnx 1.22 counts them until their number is negative
        assert operators(net).count("Concat") == 40
    assert time.process_time() - start < 10


# ----- Pads -----


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("op", ["Conv", "MaxPool", "AveragePool"])
def test_auto_pad_becomes_the_pads_it_stands_for(op, mode, stride, size):
    window = {"kernel_shape": [3, 2], "strides": [stride] * 2}
    weights = {"w": he(np.random.default_rng(0), 4, 3, 3, 2)} if op == "Conv" else None
    nodes = [node(op, "x w" if op == "Conv" else "x", "a", auto_pad=mode, **window), node("Relu", "a", "y")]
    net = model(nodes, ["N", 3, size, size], weights)
    assert all("auto_pad" not in found.attrs for found in canonical.canonicalise(net).nodes)
    feed = picture(2, 3, size, size)
    check_same_function(net, feed)
    assert x_hat(net, feed)[0].shape == feed.shape


@pytest.mark.parametrize("op", ["Conv", "MaxPool"])
def test_same_pads_beside_dilations_are_refused(op):
    weights = {"w": he(np.random.default_rng(0), 4, 3, 3, 3)} if op == "Conv" else None
    kernel = {} if op == "Conv" else {"kernel_shape": [3, 3]}
    inputs = "x w" if op == "Conv" else "x"
    net = model(
        [node(op, inputs, "y", auto_pad="SAME_UPPER", dilations=[2, 2], **kernel)], [1, 3, 8, 8], weights
    )
    with pytest.raises(RevgraphError, match=rf"node 'y' \({op}\).*explicit pads"):
        canonical.canonicalise(net)


# ----- The whole -----


def test_the_result_is_a_graph_and_the_model_is_untouched():
    net = cnn()
    before = net.SerializeToString(deterministic=True)
    graph = canonical.canonicalise(net)
    assert isinstance(graph, gs.Graph)
    revgraph.compile(net, variant="salinet")
    assert net.SerializeToString(deterministic=True) == before


def test_canonicalising_twice_changes_nothing():
    once = gs.export_onnx(canonical.canonicalise(cnn()))
    again = gs.export_onnx(canonical.canonicalise(once))
    assert [(n.op_type, n.name, list(n.input)) for n in again.graph.node] == [
        (n.op_type, n.name, list(n.input)) for n in once.graph.node
    ]


def test_several_outputs_keep_their_order():
    nodes = [*cnn().graph.node]
    weights = {t.name: numpy_helper.to_array(t) for t in cnn().graph.initializer}
    names = ["relu2", "prob", "conv1", "logits"]
    net = model(nodes, ["N", 3, 8, 8], weights, outputs=names)
    _, outputs = x_hat(net)
    assert list(outputs) == names
    check_same_function(net)


# ----- Contradictions and empty things -----


def empty(name, kind=onnx.AttributeProto.INTS):
    return onnx.AttributeProto(name=name, type=kind)


def test_attributes_that_list_nothing_are_as_good_as_none():
    """onnx-graphsurgeon cannot write them: of what type is a list of nothing?"""
    nothing = onnx.NodeProto(op_type="Constant", output=["nothing"], attribute=[empty("value_ints")])
    same = node("ReduceSum", "x nothing", "same", noop_with_empty_axes=1)
    nodes = [nothing, same, node("Add", "x same", "y")]
    check_same_function(model(nodes, [1, 3, 4, 4]), picture(1, 3, 4, 4))


def test_an_output_that_is_an_input_is_what_the_input_is():
    net = model([node("Relu", "x", "y")], [2, 3, 4])
    declared = net.graph.output.add()
    declared.CopyFrom(net.graph.input[0])
    declared.type.tensor_type.shape.dim[1].Clear()
    declared.type.tensor_type.shape.dim[2].dim_value = 1
    assert canonical.canonicalise(net).outputs[1].shape == [2, 3, 4]
    revgraph.compile(net, variant="salinet", at="y")


def test_a_group_of_nothing_is_no_normalisation():
    nodes = [
        node("Slice", "x first first second", "none"),
        node("Mul", "none none", "square"),
        node("Sqrt", "square", "root"),
        node("Div", "none root", "shares"),
        node("ReduceSum", "shares second", "sum"),
        node("Add", "x sum", "y"),
    ]
    held = {"first": np.array([0]), "second": np.array([1])}
    assert revgraph.compile(model(nodes, [1, 3, 4, 4], held), variant="salinet").at == "y"


def test_a_picture_without_elements_is_refused():
    with pytest.raises(RevgraphError, match="'x' has no elements"):
        revgraph.compile(model([node("Relu", "x", "y")], [1, 0, 4, 4]), variant="salinet")


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_a_size_may_be_the_largest_of_one(op):
    nodes = [
        node("Shape", "x", "size"),
        node("Gather", "size places", "chosen"),
        node(op, "chosen", "same"),
        node("Concat", "rest same", "shape", axis=0),
        node("Reshape", "x shape", "y"),
    ]
    held = {"places": np.array([1, 2, 3]), "rest": np.array([-1])}
    check_same_function(model(nodes, ["N", 3, 4, 4], held), picture(2, 3, 4, 4))
