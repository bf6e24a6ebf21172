"""If, whose branch is taken before the run; conditions that only the run knows."""

import numpy as np
import onnx
import pytest
from layers import assert_close, refusal, reverse
from networks import node, picture, run
from onnx import TensorProto, helper, numpy_helper

import revgraph
from revgraph import canonical, reference

SHAPE = ["N", 3, 4]
X, P = picture(2, 3, 4), picture(2, 3, 4, seed=1)


def value(name, shape=SHAPE):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def tensors(**weights):
    return [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items()]


def branch(*nodes, **weights):
    """Its output is that of its last node."""
    return helper.make_graph(nodes, "branch", [], [value(nodes[-1].output[0])], tensors(**weights))


def choose(condition, output, then, otherwise):
    return node("If", condition, output, then_branch=then, else_branch=otherwise)


def net(*nodes, outputs=("y",), **weights):
    graph = helper.make_graph(nodes, "g", [value("x")], [value(y) for y in outputs], tensors(**weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def assert_agrees(source, variant="desalinet"):
    """Forward and reversed, with the oracle, which runs the branches as they are."""
    onnx.checker.check_model(source, full_check=True)
    values = reference.forward(source, {"x": X})
    session = revgraph.Session(revgraph.compile(source, variant=variant), threads=1)
    trace = session.forward(X)
    assert_close(trace.y, values["y"])
    expected = reference.reverse(source, values, variant=variant, at="y", to="x", p=P)["x"]
    assert_close(session.reverse(trace, P), expected)


def times(source, factor, holder="initializer"):
    """A branch that multiplies by a number called w."""
    product = node("Mul", f"{source} w", "o")
    if holder == "initializer":
        return branch(product, w=np.float32(factor))
    (weight,) = tensors(w=np.float32(factor))
    return branch(helper.make_node("Constant", [], ["w"], value=weight), product)


@pytest.mark.parametrize("taken", [True, False])
def test_the_branch_that_is_taken_is_inlined(taken):
    then, otherwise = branch(node("Relu", "x", "t")), branch(node("Neg", "x", "e"))
    source = net(choose("c", "a", then, otherwise), node("Abs", "a", "y"), c=np.array(taken))
    operators = [each.op for each in canonical.canonicalise(source).nodes]
    assert operators.count("If") == 0
    assert operators.count("Relu" if taken else "Neg") == 1
    assert_agrees(source)


def test_it_may_give_the_model_s_own_output():
    then, otherwise = branch(node("Relu", "x", "t")), branch(node("Neg", "x", "e"))
    assert_agrees(net(choose("c", "y", then, otherwise), c=np.array(True)))


@pytest.mark.parametrize("holder", ["initializer", "Constant"])
def test_branches_may_call_what_they_hold_the_same(holder):
    source = net(
        choose("c", "a", times("x", 2, holder), times("x", 3, holder)),
        choose("c", "b", times("a", 5, holder), times("a", 7, holder)),
        node("Identity", "b", "y"),
        c=np.array(True),
    )
    assert_close(reverse(source, X, P), 10 * P)
    assert_agrees(source)


def test_large_weights_of_branches_too():
    def convolved(x, seed):
        w = picture(3, 3, 400, seed=seed)
        return branch(node("Conv", f"{x} w", "o", pads=[200, 199]), w=w)

    source = net(
        choose("c", "a", convolved("x", 0), convolved("x", 1)),
        choose("c", "b", convolved("a", 2), convolved("a", 3)),
        node("Identity", "b", "y"),
        c=np.array(False),
    )
    assert_agrees(source)


def test_names_of_a_branch_that_the_graph_has_by_then():
    """Neither sees the other; inlined one after the other they would."""
    first = branch(node("Relu", "x", "t"), node("Neg", "t", "o"))
    second = branch(node("Abs", "a", "t"), node("Exp", "t", "o"))
    source = net(
        choose("c", "a", first, first),
        choose("c", "b", second, second),
        node("Relu", "b", "y"),
        c=np.array(True),
    )
    assert_agrees(source)


@pytest.mark.parametrize("inner", ["outer condition", "computed within"])
def test_branches_nest(inner):
    nodes = [] if inner == "outer condition" else [node("Not", "c", "d")]
    condition = "c" if inner == "outer condition" else "d"
    nest = branch(*nodes, choose(condition, "q", times("x", 2), times("x", 3)))
    source = net(choose("c", "a", nest, times("x", 5)), node("Relu", "a", "y"), c=np.array(True))
    assert_agrees(source)
    assert_close(reverse(source, X, P, "identity"), (2 if inner == "outer condition" else 3) * P)


def test_a_condition_on_sizes_is_known():
    """As PyTorch exports squeeze(dim): only if there is one."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s two", "n"),
        node("Equal", "n one", "c"),
        choose("c", "a", branch(node("Neg", "x", "t")), branch(node("Relu", "x", "e"))),
        node("Identity", "a", "y"),
    ]
    source = net(*nodes, two=np.array(2), one=np.array(1))
    assert [each.op for each in canonical.canonicalise(source).nodes].count("Relu") == 1
    assert_agrees(source)


UNKNOWN = [node("ReduceSum", "x", "total", keepdims=0), node("Greater", "total zero", "c")]


def test_a_condition_that_only_the_run_knows_is_refused_by_name():
    then, otherwise = branch(node("Relu", "x", "t")), branch(node("Neg", "x", "e"))
    source = net(*UNKNOWN, choose("c", "a", then, otherwise), node("Abs", "a", "y"), zero=np.float32(0))
    what, why, _ = refusal(source)
    assert (what, why) == ("cannot reverse node 'a'", "no rule for If")


def test_beside_the_path_such_a_condition_is_in_nobodys_way():
    then, otherwise = branch(node("Relu", "x", "t")), branch(node("Neg", "x", "t"))
    nodes = [
        *UNKNOWN,
        choose("known", "a", then, otherwise),
        node("Abs", "a", "y"),
        choose("c", "z", then, otherwise),
    ]
    source = net(*nodes, outputs=["y", "z"], zero=np.float32(0), known=np.array(True))
    assert_agrees(source)
    trace = revgraph.Session(revgraph.compile(source, variant="salinet"), threads=1).forward(X)
    assert_close(trace.outputs["z"], np.maximum(X, 0) if X.sum() > 0 else -X)


@pytest.mark.parametrize("outside", [True, False])
def test_such_branches_may_read_large_weights_of_the_graph(outside):
    def convolved(source, output):
        return node("Conv", f"{source} w", output, pads=[200, 199])

    branches = branch(convolved("y", "t")), branch(node("Neg", "y", "n"), convolved("n", "e"))
    layer = convolved("x", "y") if outside else node("Relu", "x", "y")
    w = picture(3, 3, 400)
    source = net(*UNKNOWN, layer, choose("c", "z", *branches), outputs=["y", "z"], zero=np.float32(0), w=w)
    assert_agrees(source)
    trace = revgraph.Session(revgraph.compile(source, variant="salinet"), threads=1).forward(X)
    assert_close(trace.outputs["z"], run(source, x=X)["z"])


def test_layers_that_decide_alone_are_not_reversed():
    """Their derivative is zero; so a condition may come from layers that have no rule."""
    nodes = [
        node("Floor", "x", "f"),
        node("Conv", "f k", "scores"),
        node("Greater", "scores zero", "c"),
        node("Where", "c x zero", "y"),
    ]
    source = net(*nodes, k=picture(3, 3, 1), zero=np.float32(0))
    assert revgraph.compile(source, variant="salinet").taps == ("y/mask",)
    assert_agrees(source)
