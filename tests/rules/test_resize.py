"""Resize at fixed sizes, against its own matrix: Eq. (6)."""

import numpy as np
import pytest
from layers import assert_transposed, refusal
from networks import model, node

import revgraph

# id: inputs of Resize on x (N, 2, 4, 6), their values, attributes
RESIZED = {
    "one axis keeps its size": ("x  s", {"s": np.array([1, 1, 1.2, 2], np.float32)}, {}),
    "both axes keep their sizes": ("x  s", {"s": np.array([1, 1, 1.2, 1.1], np.float32)}, {}),
    "scales of one axis": ("x  s", {"s": np.array([1.5], np.float32)}, {"axes": [3]}),
    "scales of axes in another order": ("x  s", {"s": np.array([3, 1.5], np.float32)}, {"axes": [3, 2]}),
    "sizes of axes in another order": ("x   s", {"s": np.array([7, 9])}, {"axes": [-1, -2]}),
}


def net(inputs, tensors, size=(4, 6), **attributes):
    """At opset 18, where `axes` and `keep_aspect_ratio_policy` came."""
    return model([node("Resize", inputs, "y", **attributes)], ["N", 2, *size], tensors, opset=18)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("coordinates", ["asymmetric", "half_pixel"])
@pytest.mark.parametrize("case", RESIZED)
def test_each_axis_by_itself(case, coordinates, mode):
    inputs, tensors, attributes = RESIZED[case]
    attributes |= {"mode": mode, "coordinate_transformation_mode": coordinates}
    assert_transposed(net(inputs, tensors, **attributes), 2, 4, 6)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("sizes", [(1, 2), (2, 1), (3, 2)])
def test_corners_aligned_of_few_elements(sizes, mode):
    """Of two, one is the first and one the last; one alone is the first."""
    attributes = {"axes": [2, 3], "mode": mode, "coordinate_transformation_mode": "align_corners"}
    assert_transposed(net("x   s", {"s": np.array(sizes)}, **attributes), 2, 4, 6)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_channels_of_which_only_the_run_knows_the_number(mode):
    layer = node("Resize", "x  s", "y", mode=mode)
    source = model([layer], ["N", "C", 4, 6], {"s": np.array([1, 1, 2, 3], np.float32)})
    source.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "C"
    assert_transposed(source, 2, 4, 6)


@pytest.mark.parametrize("factors", [(2, 3), (1, 4), (3, 1)])
def test_repetitions_are_summed_by_one_convolution(factors):
    """What nearest repeats; nothing else, though its factors be whole."""
    scales = {"s": np.array([1, 1, *factors], np.float32)}
    repeated, interpolated = net("x  s", scales), net("x  s", scales, mode="linear")
    assert_transposed(repeated, 2, 4, 6)
    assert_transposed(interpolated, 2, 4, 6)
    assert operators(repeated) == ["Conv", "Identity"]
    assert "Conv" not in operators(interpolated)


def operators(source):
    return [layer.op_type for layer in revgraph.compile(source, variant="salinet").reversed.graph.node]


REMEDY = "use nearest or linear, or choose --at before this node"


@pytest.mark.parametrize(
    ("scales", "attributes", "why"),
    [
        ([1, 2, 2, 2], {}, "it resizes other axes than the spatial ones"),
        ([1, 1, 2, 2], {"mode": "cubic"}, "its mode is cubic, or antialiased"),
        ([1, 1, 0.5, 0.5], {"mode": "linear", "antialias": 1}, "its mode is linear, or antialiased"),
        ([1, 1, 2, 2], {"coordinate_transformation_mode": "tf_crop_and_resize"},
         "it uses tf_crop_and_resize"),
    ],
)  # fmt: skip
def test_what_no_matrix_is_written_for_is_refused(scales, attributes, why):
    tensors = {"s": np.array(scales, np.float32), "all": np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32)}
    assert refusal(net("x all s", tensors, **attributes)) == ("cannot reverse node 'y' (Resize)", why, REMEDY)


def test_an_aspect_ratio_to_keep_is_refused():
    source = net("x   s", {"s": np.array([8, 8])}, axes=[2, 3], keep_aspect_ratio_policy="not_larger")
    assert refusal(source)[1:] == (
        "it is told to keep the aspect ratio",
        "give the size that it comes to, or choose --at before this node",
    )


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_absurd_scales_are_refused(mode):
    source = net("x  s", {"s": np.array([1, 1, 2**14, 2**14], np.float32)}, size=(2**11, 2**11), mode=mode)
    what, why, remedy = refusal(source)
    assert what == "cannot reverse node 'y' (Resize)"
    assert "is absurdly large" in why
    assert remedy == "check the model"
