"""Layers that take a part of x, or put x into something larger: what they do to the batch. Eq. (6)."""

import numpy as np
import pytest
from layers import assert_transposed, refusal, reverse
from networks import model, node, picture

import revgraph

KEEP_BATCH = "keep the batch on the first axis, or choose --at before this node"
TENSORS = {
    "zero": np.array([0]),
    "one": np.array([1]),
    "end": np.array([2**31 - 1]),
    "batch": np.array([0]),
    "before": np.array([1, 0, 0, 0, 0, 0]),
    "after": np.array([0, 0, 0, 1, 0, 0]),
    "table": np.array([[0, 1]]),
}


@pytest.mark.parametrize(
    ("layer", "why", "remedy"),
    [
        (node("Pad", "x before", "y"), "it changes the batch", KEEP_BATCH),
        (node("Pad", "x after", "y"), "it changes the batch", KEEP_BATCH),
        (node("Pad", "x before", "y", mode="edge"), "it changes the batch", KEEP_BATCH),
        (node("Pad", "x after", "y", mode="edge"), "it changes the batch", KEEP_BATCH),
        (node("Gather", "x table", "y", axis=1), "its positions along axis 1 are not a plain list",
         "use Slice instead"),
    ],
)  # fmt: skip
def test_what_is_no_part_of_each_image_is_refused(layer, why, remedy):
    net = model([layer], ["N", 3, 4], TENSORS)
    assert refusal(net) == (f"cannot reverse node 'y' ({layer.op_type})", why, remedy)


def test_channels_chosen_of_an_unknown_number_are_refused():
    net = model([node("Gather", "x zero", "y", axis=1)], ["N", "C", 4], TENSORS)
    assert refusal(net)[1] == "its positions along axis 1 are not a plain list"


@pytest.mark.parametrize("axis", [0, -3])
def test_images_chosen_of_the_batch_are_refused(axis):
    net = model([node("Gather", "x zero", "y", axis=axis)], [1, 3, 4], TENSORS)
    assert refusal(net) == ("cannot reverse node 'y' (Gather)", "it chooses images of the batch", KEEP_BATCH)


def test_a_slice_of_the_whole_batch_is_all_of_it():
    """Exporters write an end of 2**31 - 1 for "to the end"."""
    net = model([node("Slice", "x zero end batch", "y")], ["N", 3, 4], TENSORS)
    net.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "N"
    p = picture(2, 3, 4)
    np.testing.assert_array_equal(reverse(net, picture(2, 3, 4), p), p)


@pytest.mark.parametrize(("axis", "operators"), [(2, ["MatMul", "Identity"]), (3, ["MatMul", "Identity"])])
def test_elements_of_rows_or_columns_are_moved_by_one_product(axis, operators):
    """By a matrix that is stored as it is needed."""
    net = model([node("Gather", "x at", "y", axis=axis)], ["N", 2, 3, 4], {"at": np.array([1, 0, 1])})
    pair = revgraph.compile(net, variant="salinet")
    assert [layer.op_type for layer in pair.reversed.graph.node] == operators
    assert_transposed(net, 2, 3, 4)
