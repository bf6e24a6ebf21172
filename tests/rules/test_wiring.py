"""Layers that only move and add numbers, against their own matrix: Eq. (6)."""

import math

import numpy as np
import onnx
import pytest
from layers import assert_close, assert_transposed, refusal, reverse, weights
from networks import model, node, picture

import revgraph
from revgraph import variants

GAP, FLAT = node("GlobalAveragePool", "x", "gap"), node("Flatten", "x", "flat")
COLUMN = node("Conv", "x column", "col")  # (N, 4, 1, 4): broadcasts along the rows

# id: nodes on x of (N, 4, 3, 4), from which y comes
LAYERS = {
    "Add a constant": [node("Add", "x c", "y")],
    "Add, a constant first": [node("Add", "c x", "y")],
    "Add a constant of fewer axes": [node("Add", "x rows", "y")],
    "Add, x along a constant's axis": [GAP, node("Add", "gap rows", "y")],
    "Add, x along two axes of a constant": [GAP, node("Add", "whole gap", "y")],
    "Add, one term along two axes": [GAP, node("Add", "x gap", "y")],
    "Add, one term along one axis": [COLUMN, node("Add", "col x", "y")],
    "Add, both along other axes": [COLUMN, node("AveragePool", "x", "row", kernel_shape=[1, 4]),
                                   node("Add", "col row", "y")],
    "Add x to itself": [node("Add", "x x", "y")],
    "Sum of three": [GAP, COLUMN, node("Sum", "gap x col", "y")],
    "Sum with a constant": [GAP, node("Sum", "gap whole x", "y")],
    "Sum of three times x": [node("Sum", "x x x", "y")],
    "Sum of one": [node("Sum", "x", "y")],
    "Concat on channels": [COLUMN, node("Conv", "x one", "two"), node("Concat", "x two x", "y", axis=1)],
    "Concat on a negative axis": [node("Conv", "x one", "two"), node("Concat", "two x", "y", axis=-3)],
    "Concat on rows": [COLUMN, node("Concat", "col x col", "y", axis=2)],
    "Concat on columns": [node("AveragePool", "x", "row", kernel_shape=[1, 3]),
                          node("Concat", "row x", "y", axis=-1)],
    "Flatten": [FLAT, node("Identity", "flat", "y")],
    "Flatten on a negative axis": [node("Flatten", "x", "y", axis=-3)],
    "Reshape by 0 and -1": [node("Reshape", "x 0,-1", "y")],
    "Reshape by 0, 0 and -1": [node("Reshape", "x 0,0,-1", "y")],
    "Reshape by -1 first": [node("Reshape", "x -1,48", "y")],
    "Reshape to groups": [node("Reshape", "x 0,2,2,3,4", "y")],
    "Reshape twice": [node("Reshape", "x 0,-1", "a"), node("Reshape", "a 0,2,-1,3", "y")],
    "Squeeze of what is named": [COLUMN, node("Squeeze", "col third", "y")],
    "Unsqueeze": [node("Unsqueeze", "x 2,-1", "y")],
    "Transpose": [node("Transpose", "x", "y", perm=[0, 3, 1, 2])],
    "channel shuffle": [node("Reshape", "x 0,2,2,3,4", "a"),
                        node("Transpose", "a", "b", perm=[0, 2, 1, 3, 4]),
                        node("Reshape", "b 0,-1,3,4", "y")],
    "Dropout": [node("Dropout", "x", "y")],
    "Dropout with a ratio": [node("Dropout", "x half", "y")],
    "Dropout switched off": [node("Dropout", "x half no", "y")],
    "Identity": [node("Identity", "x", "a"), node("Identity", "a", "y")],
}  # fmt: skip

TARGETS = ("0,-1", "0,0,-1", "-1,48", "0,2,2,3,4", "0,2,-1,3", "0,-1,3,4")
TENSORS = {
    "c": weights(1, 4, 3, 4),
    "rows": weights(3, 1),
    "whole": weights(1, 4, 3, 4),
    "column": weights(4, 4, 3, 1),
    "one": weights(2, 4, 1, 1),
    "half": np.array(0.5, np.float32),
    "no": np.array(False),
    "third": np.array([2]),
    "2,-1": np.array([2, -1]),
    **{target: np.array([int(n) for n in target.split(",")]) for target in TARGETS},
}


def net(nodes, *shape, tensors=TENSORS):
    used = {name for layer in nodes for name in layer.input}
    return model(nodes, shape, {name: values for name, values in tensors.items() if name in used})


@pytest.mark.parametrize("case", LAYERS)
def test_wiring(case):
    assert_transposed(net(LAYERS[case], "N", 4, 3, 4), 4, 3, 4)


def test_concat_with_a_constant():
    source = net([node("Concat", "c x c", "y", axis=2)], 1, 4, 3, 4)
    p = picture(1, 4, 9, 4)
    np.testing.assert_array_equal(reverse(source, picture(1, 4, 3, 4), p), p[:, :, 3:6])


@pytest.mark.parametrize("target", [[0, -1], [-1, 12], [2, 12]])
def test_a_static_batch_reshaped(target):
    source = net([node("Reshape", "x t", "y")], 2, 4, 3, tensors={"t": np.array(target)})
    p = picture(2, 12)
    np.testing.assert_array_equal(reverse(source, picture(2, 4, 3), p), p.reshape(2, 4, 3))


def test_squeeze_of_all_that_is_1():
    """Where no axes are named."""
    source, p = net([GAP, node("Squeeze", "gap", "y")], 2, 4, 3, 5), picture(2, 4)
    expected = np.broadcast_to(p[:, :, None, None] / 15, (2, 4, 3, 5))
    assert_close(reverse(source, picture(2, 4, 3, 5), p), expected)


@pytest.mark.parametrize("shape", [("N", 4, 3, 4), (2, 4, 3, 4)], ids=["a batch of any size", "a batch of 2"])
def test_the_shape_that_pytorch_computes(shape):
    """view(x.size(0), -1) is exported as Shape, Gather, Unsqueeze, Concat, Reshape."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "n", axis=0),
        node("Unsqueeze", "n axes", "batch"),
        node("Concat", "batch rest", "target", axis=0),
        node("Reshape", "x target", "y"),
    ]
    tensors = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}
    p = picture(2, 48)
    x_hat = reverse(net(nodes, *shape, tensors=tensors), picture(2, 4, 3, 4), p)
    np.testing.assert_array_equal(x_hat, p.reshape(2, 4, 3, 4))


def test_a_constant_with_a_batch_of_its_own():
    """One image would become two: the model fits batches of two only, or it is refused."""
    source = net([node("Add", "x two", "y")], "N", 4, 3, tensors={"two": weights(2, 4, 3)})
    assert refusal(source) == (
        "cannot reverse node 'y' (Add)",
        "it changes the batch from N to 2",
        "keep the batch on the first axis, or declare the model's batch as what the node makes of it",
    )


def test_another_input_may_broadcast_as_it_likes():
    """It is fed forward and held constant, so its own axes do not matter."""
    source = net([node("Add", "x b", "y")], "N", 4, 3, 4, tensors={"b": weights(4, 1, 1)})
    del source.graph.initializer[:]
    source.graph.input.append(onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [4, 1, 1]))
    session = revgraph.Session(revgraph.compile(source, variant="salinet", input="x"), threads=1)
    p = picture(2, 4, 3, 4)
    x_hat = session.reverse(session.forward(picture(2, 4, 3, 4), b=weights(4, 1, 1)), p)
    np.testing.assert_array_equal(x_hat, p)


# ----- Refusals -----

KEEP_BATCH = "keep the batch on the first axis, or choose --at before this node"


@pytest.mark.parametrize(
    ("layer", "shape", "why"),
    [
        (node("Concat", "x x", "y", axis=0), ["N", 4, 3, 4], "it joins images along the batch"),
        (node("Concat", "x x", "y", axis=-4), ["N", 4, 3, 4], "it joins images along the batch"),
        (node("Transpose", "x", "y", perm=[1, 0, 2, 3]), [4, 4, 3, 4],
         "it moves the batch off the first axis"),
        (node("Transpose", "x", "y"), [4, 4, 4, 4], "it moves the batch off the first axis"),
        (node("Reshape", "x t", "y"), ["N", 4, 3, 4],
         "it turns ['N', 4, 3, 4] into ['unk__0', 24], mixing the images of a batch"),
        (node("Flatten", "x", "y", axis=2), ["N", 4, 3, 4],
         "it turns ['N', 4, 3, 4] into ['unk__0', 12], mixing the images of a batch"),
        (node("Reshape", "x t", "y"), ["N", 4, "H", "W"],
         "it turns ['N', 4, 'H', 'W'] into ['unk__0', 24], mixing the images of a batch"),
        (node("Unsqueeze", "x first", "y"), [1, 4, 3], "it moves the batch off the first axis"),
        (node("Squeeze", "x first", "y"), [1, 1, 3], "it moves the batch off the first axis"),
    ],
)  # fmt: skip
def test_what_mixes_the_images_of_a_batch_is_refused(layer, shape, why):
    source = net([layer], *shape, tensors={"t": np.array([-1, 24]), "first": np.array([0])})
    assert refusal(source) == (f"cannot reverse node 'y' ({layer.op_type})", why, KEEP_BATCH)


def test_a_constant_that_moves_the_batch_is_refused():
    source = net([node("Add", "x deep", "y")], 2, 2, 2, tensors={"deep": weights(2, 1, 1, 1)})
    what, _, _ = refusal(source)
    assert what == "cannot reverse node 'y' (Add)"


def test_a_choice_that_no_image_makes_is_refused():
    nodes = [node("Greater", "z zero", "c"), node("Neg", "x", "n"), node("Where", "c x n", "y")]
    source = net(nodes, "N", 4, 3, tensors={"z": weights(4, 1), "zero": np.float32(0)})
    del source.graph.initializer[0]
    source.graph.input.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [4, 1]))
    assert refusal(source, input="x") == (
        "cannot reverse node 'y' (Where)",
        "its condition is shaped [4, 1]",
        "give it the batch axis, or make it a constant",
    )


def test_whole_numbers_on_the_way_are_refused():
    nodes = [node("Cast", "x", "i", to=onnx.TensorProto.INT32), node("Cast", "i", "y", to=1)]
    assert refusal(net(nodes, "N", 4, 3)) == (
        "cannot reverse node 'i' (Cast)",
        "it rounds to int32",
        "choose --at before this node",
    )


def test_a_picture_of_bytes_comes_back_as_floats():
    source = net([node("Cast", "x", "f", to=1), node("Mul", "f half", "y")], "N", 4, 3)
    source.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    x, p = np.arange(24, dtype=np.uint8).reshape(2, 4, 3), picture(2, 4, 3)
    x_hat = reverse(source, x, p)
    assert x_hat.dtype == np.float32
    np.testing.assert_array_equal(x_hat, p / 2)


def test_dropout_in_training_mode_is_refused():
    tensors = {"half": np.array(0.5, np.float32), "yes": np.array(True)}
    assert refusal(net([node("Dropout", "x half yes", "y")], "N", 4, 3, tensors=tensors)) == (
        "cannot reverse node 'y' (Dropout)",
        "it is in training mode",
        "export the model for inference",
    )


def test_an_operator_without_a_rule_is_refused_with_those_that_have_one():
    source = net([node("Identity", "x", "a"), node("Floor", "a", "y")], "N", 4, 3)
    assert refusal(source) == (
        "cannot reverse node 'y'",
        "no rule for Floor",
        f"rules exist for {', '.join(sorted(variants.rules('salinet')))}",
    )


def test_sizes_that_only_the_run_knows():
    for source in (
        net([FLAT, node("Identity", "flat", "y")], "N", 2, "H", "W"),
        net([node("Reshape", "x 0,-1", "y")], "N", 2, "H", "W"),
        net([node("Reshape", "x 0,-1", "y")], "N", 2, "T"),
    ):
        rank = len(source.graph.input[0].type.tensor_type.shape.dim)
        for size in (3, 4)[: rank - 2], (5, 2)[: rank - 2]:
            p = picture(3, 2 * math.prod(size))
            np.testing.assert_array_equal(reverse(source, picture(1, 2, *size), p), p.reshape(3, 2, *size))


def test_a_shape_of_which_nothing_is_known_is_refused():
    source = net([FLAT, node("Reshape", "flat 0,2,-1,3", "y")], "N", 2, "H", "W")
    assert refusal(source) == (
        "cannot reverse node 'y' (Reshape)",
        "the shape of 'flat' is known at run time only",
        "fix the input size",
    )


def test_channels_of_which_only_the_run_knows_the_number_are_not_put_back():
    source = net([node("Reshape", "x 0,-1", "y")], "N", "C", 3, 4)
    assert refusal(source)[1] == "the shape of 'x' is known at run time only"
