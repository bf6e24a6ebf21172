"""What LAYER and --input mean."""

import networks
import numpy as np
import onnx
import pytest
from networks import cnn, he, model, node, picture
from onnx import helper

import revgraph
from revgraph.errors import RevgraphError


def compiled(net, **options):
    return revgraph.compile(net, variant="desalinet", **options)


def refused(net, match, **options):
    with pytest.raises(RevgraphError, match=match) as raised:
        compiled(net, **options)
    assert "\n" not in str(raised.value)
    return raised.value


# ----- The default -----


AFTER = {  # an operator, a constant that it takes, and its attributes
    "Identity": ("", {}),
    "Cast": ("", {"to": onnx.TensorProto.FLOAT}),
    "Flatten": ("", {}),
    "Reshape": (" wide", {}),
    "Squeeze": (" axes", {}),
    "Unsqueeze": (" axes", {}),
}


def classifier(softmax, *after):
    """cnn() with those operators behind its softmax."""
    net = cnn()
    net.graph.node[-1].op_type = softmax
    for i, op in enumerate(after):
        constants, attributes = AFTER[op]
        last = net.graph.node[-1].output[0]
        net.graph.node.append(node(op, f"{last}{constants}", f"after{i}", **attributes))
    values = {"wide": np.array([0, -1, 1]), "axes": np.array([2])}
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in net.graph.initializer}
    return model(list(net.graph.node), ["N", 3, 8, 8], weights | values)


@pytest.mark.parametrize("softmax", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(
    "after",
    [
        (),
        ("Identity",),
        ("Cast",),
        ("Flatten",),
        ("Reshape",),
        ("Reshape", "Squeeze", "Cast", "Flatten", "Identity"),
    ],
    ids="-".join,
)
def test_it_is_the_input_of_the_last_softmax(softmax, after):
    assert compiled(classifier(softmax, *after)).at == "logits"


def test_the_search_looks_through_nothing_else():
    net = classifier("Softmax", "Unsqueeze")
    assert revgraph.compile(net, variant="salinet").at == net.graph.output[0].name


def test_without_a_softmax_it_is_the_first_output():
    assert compiled(cnn(softmax=False)).at == "logits"
    names = ["relu2", "prob"]
    net = cnn()
    net.graph.output.insert(
        0, helper.make_tensor_value_info("relu2", onnx.TensorProto.FLOAT, ["N", 12, 2, 2])
    )
    assert [output.name for output in net.graph.output] == names
    assert compiled(net).at == "relu2"


def test_a_softmax_that_something_follows_is_not_the_end():
    nodes = [node("Relu", "x", "a"), node("Softmax", "a", "s", axis=1), node("Neg", "s", "y")]
    assert revgraph.compile(model(nodes, [1, 3, 8, 8]), variant="salinet").at == "y"


def test_a_softmax_of_the_input_itself_leaves_nothing_to_reverse():
    refused(model([node("Softmax", "x", "y")], [1, 3, 8, 8]), "'x'.*it is an input")


# ----- By name -----


@pytest.mark.parametrize("at", [each.name for each in cnn().graph.node if each.name != "prob"])
def test_every_layer_can_be_named(at):
    pair = compiled(cnn(), at=at)
    assert pair.at == at
    assert at in [output.name for output in pair.forward.graph.output]
    shape = next(o for o in pair.forward.graph.output if o.name == at).type.tensor_type.shape
    p = pair.reversed.graph.input[0].type.tensor_type.shape
    assert list(p.dim)[1:] == list(shape.dim)[1:]


def test_a_nodes_name_stands_for_its_first_output():
    net = cnn()
    net.graph.node[2].name = "the pool"
    assert compiled(net, at="the pool").at == "pool1"


def test_a_tensors_name_comes_before_a_nodes():
    net = cnn()
    net.graph.node[2].name = "relu2"
    net.graph.node[4].name = "pool1"
    assert compiled(net, at="relu2").at == "relu2"
    assert compiled(net, at="pool1").at == "pool1"


def test_an_unknown_name_lists_the_five_nearest():
    message = refused(cnn(), "no layer 'relu3': no tensor and no node is called so", at="relu3").remedy
    names = [part.strip() for part in message.removeprefix("the nearest names are ").split(",")]
    assert len(names) == len(set(names)) == 5
    assert set(names[:2]) == {"'relu1'", "'relu2'"}


def test_a_small_net_lists_all_its_names():
    message = refused(model([node("Relu", "x", "y")], [1, 3, 8, 8]), "no layer 'z'", at="z").remedy
    assert {"'x'", "'y'"} == set(message.removeprefix("the nearest names are ").split(", "))


@pytest.mark.parametrize("at", ["", " ", "nowhere/at/all", "relu1\nrelu2", "e" * 10_000])
def test_odd_names_are_refused_in_one_line(at):
    refused(cnn(), "no layer", at=at)


def test_an_input_is_refused():
    refused(cnn(), "cannot reverse from 'x': it is an input", at="x")


def test_a_weight_is_refused():
    refused(cnn(), "w1", at="w1")


def test_an_integer_tensor_is_refused():
    nodes = [node("Relu", "x", "a"), node("ArgMax", "a", "y", axis=1)]
    net = model(nodes, [1, 3, 8, 8])
    refused(net, "'y': its elements are int64, not floating-point")
    assert compiled(net, at="a").at == "a"


def test_a_tensor_that_depends_on_no_input_is_refused():
    nodes = [node("Relu", "c", "b"), node("Add", "x b", "y")]
    refused(model(nodes, [1, 3, 8, 8], {"c": np.ones((1, 3, 1, 1), np.float32)}), "b", at="b")


@pytest.mark.parametrize("shape", [["N"], ["N", 3], ["N", 1, 2, 3, 4, 5]])
def test_an_input_must_have_three_to_five_axes(shape):
    refused(model([node("Relu", "x", "y")], shape), "3 to 5 axes")


@pytest.mark.parametrize("shape", [["N", 3, 4], ["N", 3, 4, 5], ["N", 2, 3, 4, 5]])
def test_an_input_may_have_three_to_five_axes(shape):
    assert compiled(model([node("Relu", "x", "y")], shape)).at == "y"


@pytest.mark.parametrize("nodes", [[node("ReduceMax", "x", "y", keepdims=0)], [node("Squeeze", "x", "y")]])
def test_a_layer_without_a_batch_axis_is_refused(nodes):
    refused(model(nodes, [1, 3, 8, 8]), "batch axis|no rule", at="y")


# ----- Several inputs -----


def two_inputs(opset=17):
    """y = Conv(Relu(a)) + Conv(b): a (N, 3, 8, 8), b (N, 2, 8, 8); z depends on b alone."""
    rng = np.random.default_rng(5)
    nodes = [
        node("Conv", "a v", "ca"),
        node("Relu", "ca", "ra"),
        node("Conv", "b w", "cb"),
        node("Relu", "cb", "z"),
        node("Mul", "ra z", "product"),
        node("Add", "ra z", "y"),
    ]
    net = model(nodes, ["N", 3, 8, 8], {"v": he(rng, 4, 3, 3, 3), "w": he(rng, 4, 2, 3, 3)})
    del net.graph.input[:], net.graph.output[:]
    for name, channels in (("a", 3), ("b", 2)):
        value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", channels, 8, 8])
        net.graph.input.append(value)
    net.graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4, 6, 6]))
    return net


def test_several_inputs_are_refused_with_their_list():
    refused(two_inputs(), "cannot reverse from 'y': it depends on several inputs, 'a', 'b'.*--input")


def test_a_layer_of_one_input_needs_no_choice():
    pair = compiled(two_inputs(), at="z")
    assert (pair.input, pair.at) == ("b", "z")


@pytest.mark.parametrize(
    ("name", "match"),
    [("c", "no input 'c'.*'a', 'b'"), ("", "no input ''"), ("ra", "no input 'ra'")],
)
def test_an_unknown_input_is_refused_with_their_list(name, match):
    refused(two_inputs(), match, input=name)


def test_an_input_that_the_layer_does_not_depend_on_is_refused():
    refused(two_inputs(), "'z': it does not depend on 'a' .it depends on 'b'", at="z", input="a")


@pytest.mark.parametrize(("name", "channels"), [("a", 3), ("b", 2)])
def test_the_other_inputs_are_held_constant(name, channels):
    pair = compiled(two_inputs(), input=name)
    assert pair.input == name
    assert [value.name for value in pair.forward.graph.input] == ["a", "b"]
    feeds = {"a": picture(2, 3, 8, 8), "b": picture(2, 2, 8, 8, seed=1)}
    session = revgraph.Session(pair)
    others = {key: value for key, value in feeds.items() if key != name}
    trace = session.forward(feeds[name], **others)
    np.testing.assert_allclose(trace.y, networks.run(two_inputs(), **feeds)["y"], rtol=1e-5, atol=1e-6)
    x_hat = session.reverse(trace, np.ones_like(trace.y))
    assert x_hat.shape == feeds[name].shape

    # By hand: x_hat of a sum is that of its term.
    alone = revgraph.compile(two_inputs(), variant="desalinet", at="ra" if name == "a" else "z")
    single = revgraph.Session(alone)
    trace = single.forward(feeds[name], **others)
    np.testing.assert_allclose(single.reverse(trace, np.ones_like(trace.y)), x_hat, rtol=1e-5)


def test_an_unused_input_does_not_count():
    net = two_inputs()
    net.graph.input.append(helper.make_tensor_value_info("scale", onnx.TensorProto.FLOAT, [1]))
    pair = compiled(net, at="ra")
    assert pair.input == "a"
    assert [value.name for value in pair.forward.graph.input] == ["a", "b", "scale"]
