"""Weights that are not finite are refused with their node, or noted; so are denormals."""

import numpy as np
import pytest
from networks import cnn, he, model, node, picture
from onnx import helper, numpy_helper

import revgraph
from revgraph import odd_weights
from revgraph.errors import RevgraphError
from revgraph.finite import Count
from revgraph.graph import gs
from revgraph.inspect import inspect
from revgraph.verify import verify


def spoilt(net, name, *values):
    """The network, its weight's first numbers replaced."""
    tensor = next(tensor for tensor in net.graph.initializer if tensor.name == name)
    changed = numpy_helper.to_array(tensor).copy()
    changed.flat[: len(values)] = values
    tensor.CopyFrom(numpy_helper.from_array(changed, name))
    return net


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("name", "reader"), [("w1", "conv1"), ("b1", "conv1"), ("w3", "logits")])
def test_weights_that_are_not_finite_are_refused(name, reader, value):
    net, kind = spoilt(cnn(), name, 0, value), "NaN" if np.isnan(value) else "infinite"
    why = f"cannot reverse node '{reader}': its weight '{name}' holds 1 {kind} of "
    with pytest.raises(RevgraphError, match=why):
        revgraph.compile(net, variant="salinet")
    _, _, layers = inspect(net)
    assert [found.name for found in layers if found.problem] == [reader]
    assert next(found.problem for found in layers if found.problem).startswith(why)


def test_a_constant_that_is_folded_is_looked_at_too():
    nodes = [node("Mul", "w big", "scaled"), node("Conv", "x scaled", "y")]
    tensors = {"w": he(np.random.default_rng(0), 2, 3, 1, 1), "big": np.array(3e38, np.float32)}
    tensors["w"][1] = 9
    net = model(nodes, ["N", 3, 4, 4], tensors)
    with pytest.raises(RevgraphError, match="its weight 'scaled' holds 3 infinite of 6 numbers"):
        revgraph.compile(net, variant="salinet")


def test_weights_on_the_way_from_another_input_count_and_those_beyond_y_are_noted():
    nodes = [node("Conv", "z w", "b"), node("Add", "x b", "y"), node("Add", "y late", "beyond")]
    tensors = {"w": np.ones((3, 3, 1, 1), np.float32), "late": np.full((1, 3, 1, 1), np.nan, np.float32)}
    net = model(nodes, ["N", 3, 4, 4], tensors)
    net.graph.input.append(helper.make_tensor_value_info("z", 1, ["N", 3, 4, 4]))
    net.graph.output[0].CopyFrom(helper.make_tensor_value_info("beyond", 1, ["N", 3, 4, 4]))
    pair = revgraph.compile(net, variant="salinet", at="y", input="x")
    assert pair.notes == ("weights that are NaN or infinite: 3, in late",)
    with pytest.raises(RevgraphError, match="node 'b': its weight 'w' holds 1 NaN"):
        revgraph.compile(spoilt(net, "w", np.nan), variant="salinet", at="y", input="x")


def test_bounds_and_masks_of_infinity_are_let_through():
    """A Clip without a bound, what MaxPool pads by, an additive mask."""
    nodes = [
        node("Clip", "x zero most", "clipped"),
        node("Pad", "clipped pads lowest", "padded"),
        node("MaxPool", "padded", "pooled", kernel_shape=[3, 3], strides=[2, 2]),
        node("Add", "pooled mask", "masked"),
        node("Softmax", "masked", "soft", axis=3),
        node("Mul", "soft pooled", "y"),
    ]
    mask = np.zeros((1, 1, 1, 4), np.float32)
    mask[..., 0] = -np.inf
    inf, zero = np.array(np.inf, np.float32), np.array(0, np.float32)
    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    tensors = {"zero": zero, "most": inf, "pads": pads, "lowest": -inf, "mask": mask}
    net = model(nodes, ["N", 2, 7, 7], tensors)
    pair = revgraph.compile(net, variant="salinet", at="y")
    assert pair.notes[-1] == "weights that are NaN or infinite: 1, in mask"
    session = revgraph.Session(pair, threads=1)
    trace = session.forward(picture(1, 2, 7, 7))
    x_hat = session.reverse(trace, np.ones_like(trace.y))
    assert np.isfinite(x_hat).all()
    assert x_hat.any()
    checks = {check.what: check for check in verify(pair, net)}
    assert checks["finite numbers"].passed is True


@pytest.mark.parametrize("target", ["portable", "cpu", "web"])
def test_denormal_weights_are_noted_and_the_note_travels(tmp_path, target):
    net = spoilt(spoilt(cnn(), "w1", 1e-40, -1e-45, 0, 1e-37), "b1", 1e-39)
    pair = revgraph.compile(net, variant="salinet", target=target)
    assert pair.odd_weights == {"w1": Count(denormal=2), "b1": Count(denormal=1)}
    assert len(pair.notes) == 1
    assert pair.notes[0].startswith("weights that are denormal: 3, in w1, b1: ")
    pair.save(tmp_path)
    assert revgraph.load(tmp_path).notes == pair.notes
    pair.save(tmp_path / "fused", fused=True)
    assert revgraph.load(tmp_path / "fused").notes == pair.notes
    _, _, layers = inspect(net)
    assert [dict(found.odd_weights) for found in layers if found.odd_weights] == [pair.odd_weights]


def test_a_network_without_any_has_no_note():
    assert revgraph.compile(cnn(), variant="salinet").notes == ()
    assert "odd_weights" not in revgraph.compile(cnn(), variant="salinet").metadata


def test_float16_denormals_are_noted_where_they_weigh():
    """Rounding leaves some in any network. A whole layer of them is another matter."""
    rng = np.random.default_rng(0)
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Conv", "r v", "y")]
    v = he(rng, 4, 4, 1, 1)
    v[0, 0] = 2e-5
    tensors = {"w": np.full((4, 3, 1, 1), 5e-5, np.float32), "v": v}
    pair = revgraph.compile(model(nodes, ["N", 3, 4, 4], tensors), variant="salinet", precision="fp16")
    assert list(pair.odd_weights.values()) == [Count(denormal=12)]
    assert next(iter(pair.odd_weights)).startswith("w")


def test_a_branch_of_if_is_looked_into():
    """Its weights are read by nodes of its own."""
    then, other = (
        helper.make_graph(
            [helper.make_node("Mul", ["b", f"k{name}"], [name], name=f"mul_{name}")],
            name,
            [],
            [helper.make_tensor_value_info(name, 1, None)],
            [numpy_helper.from_array(np.full(3, value, np.float32), f"k{name}")],
        )
        for name, value in (("t", 1), ("e", np.nan))
    )
    branches = helper.make_node("If", ["cond"], ["z"], name="if", then_branch=then, else_branch=other)
    net = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["x"], ["b"], name="b"), branches],
            "net",
            [helper.make_tensor_value_info("x", 1, [1, 3]), helper.make_tensor_value_info("cond", 9, [])],
            [helper.make_tensor_value_info("z", 1, None)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    (_, found) = gs.import_onnx(net).nodes
    with pytest.raises(RevgraphError, match="node 'mul_e': its weight 'ke' holds 3 NaN of 3 numbers"):
        odd_weights.check(found)
