"""Linear layers of pictures whose size only the run knows: one compilation, several sizes. Eq. (6)."""

import numpy as np
import onnx
import pytest
from layers import assert_close, assert_transposed, refusal, reverse, weights
from networks import model, node, picture

import revgraph
from revgraph import reference

SIZES = [(6, 7), (9, 5), (4, 8)]
TENSORS = {
    "w": weights(3, 2, 3, 3),
    "wide": weights(2, 2, 4, 2),
    "ahead": np.array([0, 0, 1, 2, 0, 0, 2, 1]),
    "cut": np.array([0, 0, -1, 2, 0, 0, 1, -1]),
    "0": np.array([0]),
    "1": np.array([1]),
    "-3": np.array([-3]),
    "-1": np.array([-1]),
    "2": np.array([2]),
    "3": np.array([3]),
    "all": np.array([2**31 - 1]),
    "plane": np.array([2, 3]),
    "1,2": np.array([1, 2]),
    "1,3": np.array([1, -1]),
    "last_axis": np.array([-1]),
    "at": np.array([1, 0, -1, 1]),
    "last": np.array(-1),
    "double": np.array([1, 1, 1.5, 2.3], np.float32),
}


def same(op, kernel, strides, mode):
    x = "x wide" if op == "Conv" else "x"
    return [node(op, x, "y", kernel_shape=kernel, strides=strides, auto_pad=mode)]


def average(**attributes):
    return [node("AveragePool", "x", "y", kernel_shape=[3, 2], **attributes)]


LAYERS = {
    "Conv": [node("Conv", "x w", "y", strides=[2, 3], pads=[1, 0, 1, 2])],
    "Conv SAME_UPPER": same("Conv", [4, 2], [2, 1], "SAME_UPPER"),
    "Conv SAME_LOWER": same("Conv", [4, 2], [3, 2], "SAME_LOWER"),
    "average SAME_UPPER": same("AveragePool", [3, 2], [2, 2], "SAME_UPPER"),
    "average SAME_LOWER": same("AveragePool", [2, 5], [1, 2], "SAME_LOWER"),
    "average": average(strides=[2, 2]),
    "average, padding does not count": average(strides=[2, 1], pads=[1, 1, 2, 0]),
    "average, padding counts": average(strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
    "average, ceil_mode": average(strides=[2, 2], ceil_mode=1),
    "average, ceil_mode and padding": average(strides=[2, 2], pads=[1, 1, 1, 0], ceil_mode=1),
    "average, ceil_mode, padding counts": average(
        strides=[2, 3], pads=[1, 0, 2, 1], ceil_mode=1, count_include_pad=1
    ),
    "sum over the plane": [node("ReduceSum", "x plane", "y")],
    "sum over rows and channels, gone": [node("ReduceSum", "x 1,2", "y", keepdims=0)],
    "mean over columns": [node("ReduceMean", "x last_axis", "y")],
    "mean over channels and columns": [node("ReduceMean", "x 1,3", "y")],
    "Concat along the size": [node("Neg", "x", "z"), node("Concat", "x z x", "y", axis=2)],
    "Slice": [node("Slice", "x 1 all 3", "y")],
    "Slice from the end": [node("Slice", "x -3 -1 2", "y")],
    "Slice to a number": [node("Slice", "x 1 3 2", "y")],
    "Slice from the first on": [node("Slice", "x 0 3 2", "y")],
    "Slice with steps": [node("Slice", "x 1 all 3 2", "y")],
    "Gather": [node("Gather", "x at", "y", axis=2)],
    "Gather of one": [node("Gather", "x last", "y", axis=3)],
    "Pad": [node("Pad", "x ahead", "y")],
    "Pad by reflection": [node("Pad", "x ahead", "y", mode="reflect")],
    "Pad by the edge": [node("Pad", "x ahead", "y", mode="edge")],
    "Pad by the edge, and cut": [node("Pad", "x cut", "y", mode="edge")],
}


@pytest.mark.parametrize("layer", LAYERS)
def test_linear_layers(layer):
    net = model(LAYERS[layer], ["N", 2, "H", "W"], TENSORS, opset=19)
    for size in SIZES:
        assert_transposed(net, 2, *size)


@pytest.mark.parametrize("layer", ["sum over the plane", "mean over columns"])
def test_channels_of_which_only_the_run_knows_the_number(layer):
    assert_transposed(model(LAYERS[layer], ["N", "C", "H", "W"], TENSORS, opset=19), 3, 4, 5)


@pytest.mark.parametrize("layer", ["Slice with steps", "Gather", "Pad by the edge", "mean over columns"])
def test_one_axis_of_a_known_size(layer):
    assert_transposed(model(LAYERS[layer], ["N", 2, "H", 7], TENSORS, opset=19), 2, 6, 7)


@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("coordinates", ["asymmetric", "half_pixel", "align_corners"])
def test_nearest_resize(coordinates, rounding):
    resized("nearest", coordinates, nearest_mode=rounding)


@pytest.mark.parametrize(
    "coordinates",
    ["asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"],
)
def test_linear_resize(coordinates):
    resized("linear", coordinates)


def resized(mode, coordinates, **attributes):
    attributes |= {"mode": mode, "coordinate_transformation_mode": coordinates}
    nodes = [node("Resize", "x  double", "y", **attributes)]
    net = model(nodes, ["N", 2, "H", "W"], TENSORS, opset=19)
    for size in SIZES:
        assert_transposed(net, 2, *size)


def test_resize_to_the_size_of_another_tensor():
    """As decoders are exported: the sizes are those of a tensor of the same picture."""
    nodes = [
        node("Conv", "x w", "z", strides=[2, 2], pads=[1] * 4),
        node("Shape", "x", "s", start=2),
        node("Shape", "z", "t", end=2),
        node("Concat", "t s", "sizes", axis=0),
        node("Resize", "z   sizes", "y", mode="linear"),
    ]
    for size in SIZES:
        assert_transposed(model(nodes, ["N", 2, "H", "W"], TENSORS, opset=19), 2, *size)


def test_groups_of_channels_by_a_computed_shape():
    nodes = [
        node("Shape", "x", "s", start=2),
        node("Concat", "groups s", "t", axis=0),
        node("Reshape", "x t", "y"),
    ]
    net = model(nodes, ["N", 4, "H", "W"], {"groups": np.array([0, 2, 2])}, opset=19)
    for size in SIZES:
        assert_transposed(net, 4, *size)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("variant", ["salinet", "salinet-centre"])
def test_max_pools_are_what_they_are_at_a_fixed_size(mode, variant):
    layer = node("MaxPool", "x", "y", kernel_shape=[3, 2], strides=[2, 2], auto_pad=mode)
    for size in SIZES:
        x = picture(2, 2, *size)
        free, fixed = (model([layer], ["N", 2, *shape]) for shape in (("H", "W"), size))
        p = picture(2, 2, -(-size[0] // 2), -(-size[1] // 2), seed=1)
        assert_close(reverse(free, x, p, variant), reverse(fixed, x, p, variant))


@pytest.mark.parametrize("variant", ["salinet", "salinet-centre"])
def test_global_max_pooling_is_what_it_is_at_a_fixed_size(variant):
    for size in SIZES:
        x, p = picture(2, 2, *size), picture(2, 2, 1, 1, seed=1)
        free, fixed = (
            model([node("GlobalMaxPool", "x", "y")], ["N", 2, *shape]) for shape in (("H", "W"), size)
        )
        assert_close(reverse(free, x, p, variant), reverse(fixed, x, p, variant))


GAMMA = {"gamma": weights(2), "beta": weights(2), "zero": np.float32(0)}
TURNED = node("Transpose", "x", "t", perm=[0, 1, 3, 2])

# Layers that are not linear, whose oracle is the reference at each size
OTHERS = {
    "GroupNormalization": [
        node("GroupNormalization", "x gamma beta", "z", num_groups=1),
        node("Neg", "z", "y"),
    ],
    "InstanceNormalization": [node("InstanceNormalization", "x gamma beta", "y")],
    "LayerNormalization, channels last": [
        node("Transpose", "x", "t", perm=[0, 2, 3, 1]),
        node("LayerNormalization", "t gamma beta", "z", epsilon=0.1),
        node("Transpose", "z", "y", perm=[0, 3, 1, 2]),
    ],
    "LRN": [node("LRN", "x", "y", size=3, alpha=0.5)],
    "MatMul": [TURNED, node("MatMul", "x t", "y")],
    "MatMul of one for all channels": [TURNED, node("ReduceMean", "t 1", "m"), node("MatMul", "m x", "y")],
    "Max": [node("ReduceMax", "x 2", "m"), node("Max", "m x", "y")],
    "ReduceL2": [node("ReduceL2", "x plane", "y", keepdims=0)],
    "ReduceL2 of channels": [node("ReduceL2", "x 1", "n"), node("Div", "x n", "y")],
    "ReduceMax": [node("ReduceMax", "x plane", "y")],
    "ReduceMax of all": [node("ReduceMax", "x all_axes", "y")],
    "ReduceMax of rows": [node("ReduceMax", "x 2", "y", keepdims=0)],
    "ReduceMin of columns": [node("ReduceMin", "x 3", "y")],
    "Softmax": [node("Softmax", "x", "y", axis=2)],
    "Where": [node("Greater", "x zero", "c"), node("Neg", "x", "n"), node("Where", "c x n", "y")],
}


@pytest.mark.parametrize("layer", OTHERS)
def test_other_layers(layer):
    net = others(layer)
    for variant in revgraph.VARIANTS:
        session = revgraph.Session(revgraph.compile(net, variant=variant, at="y"), threads=1)
        for size in SIZES:
            x = picture(2, 2, *size)
            tensors = reference.forward(net, {"x": x})
            p = picture(*tensors["y"].shape, seed=1)
            x_hat = reference.reverse(net, tensors, variant=variant, at="y", to="x", p=p)["x"]
            assert_close(session.reverse(session.forward(x), p), x_hat)


def others(layer):
    axes = {"plane": np.array([2, 3]), "all_axes": np.array([1, 2, 3])}
    net = model(OTHERS[layer], ["N", 2, "H", "W"], TENSORS | GAMMA | axes, opset=21, ir_version=10)
    if layer == "GroupNormalization":  # behind which ONNX infers no shape
        kind, shape = onnx.TensorProto.FLOAT, ["N", 2, "H", "W"]
        net.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", kind, shape))
    return net


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
def test_pictures_of_two_sizes_share_a_compilation_of_many_layers(variant):
    """And P projections share one picture."""
    nodes = [
        node("Conv", "x w", "c", strides=[2, 1], pads=[1] * 4),
        node("Relu", "c", "r"),
        node("MaxPool", "r", "m", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        node("ReduceMax", "m plane", "g"),
        node("Sub", "m g", "d"),
        node("Concat", "m d", "y", axis=1),
    ]
    net = model(nodes, ["N", 2, "H", "W"], TENSORS | {"plane": np.array([2, 3])}, opset=18)
    session = revgraph.Session(revgraph.compile(net, variant=variant), threads=1)
    for size in (9, 11), (12, 7):
        x = picture(1, 2, *size)
        tensors = reference.forward(net, {"x": x})
        p = picture(3, *tensors["y"].shape[1:], seed=1)
        x_hat = session.reverse(session.forward(x), p)
        for i in range(3):
            row = reference.reverse(net, tensors, variant=variant, at="y", to="x", p=p[i : i + 1])["x"]
            assert_close(x_hat[i : i + 1], row)


FLIP = {"s": np.array([-1]), "e": np.array([-(2**62)]), "2": np.array([2]), "-1": np.array([-1])}


@pytest.mark.parametrize(
    ("layer", "shape", "axis"),
    [
        (node("ReduceMean", "x 1", "y"), ["N", "T", 5], 1),
        (node("ReduceSum", "x 1", "y"), ["N", "C", "H", "W"], 1),
        (node("ReduceMax", "x 1", "y"), ["N", "T", 5], 1),
        (node("ReduceMin", "x 1", "y"), ["N", "C", 4, 5], 1),
        (node("Pad", "x around", "y", mode="reflect"), ["N", "T", 5], 1),
        (node("Slice", "x 3 all 1", "y"), ["N", "T", 5], 1),
        (node("Slice", "x s e 2 -1", "y"), ["N", 2, "H", "W"], 2),
        (node("AveragePool", "x", "y", kernel_shape=[2, 2]), ["N", "C", 4, 5], 1),
        (node("MaxPool", "x", "y", kernel_shape=[2, 2]), ["N", "C", 4, 5], 1),
        (node("GlobalMaxPool", "x", "y"), ["N", "C", 4, 5], 1),
        (node("DepthToSpace", "x", "y", blocksize=2, mode="CRD"), ["N", "C", 4, 5], 1),
    ],
    ids=lambda value: value.op_type if hasattr(value, "op_type") else "",
)
def test_sizes_that_no_tap_has(layer, shape, axis):
    tensors = TENSORS | FLIP | {"around": np.array([0, 1, 0, 0, 1, 0])}
    net = model([layer], shape, tensors, opset=18)
    with pytest.raises(revgraph.RevgraphError, match=f"the size along axis {axis} is known at run time only"):
        revgraph.compile(net, variant="salinet-centre")


def test_a_window_of_channels_needs_their_number():
    net = model([node("LRN", "x", "y", size=3)], ["N", "C", 4, 5])
    assert refusal(net, lrn="bp")[1] == "the size along axis 1 is known at run time only"


def test_groups_of_channels_need_their_number():
    net = model(
        [node("GroupNormalization", "x gamma beta", "y", num_groups=2)],
        ["N", "C", 4, 5],
        GAMMA,
        opset=21,
        ir_version=10,
    )
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", "C", 4, 5])
    net.graph.output[0].CopyFrom(y)
    assert refusal(net)[1] == "the size along axis 1 is known at run time only"


def test_what_is_cut_out_of_the_channels_needs_their_number():
    net = model([node("Concat", "x x", "y", axis=1)], ["N", "C", "H", "W"])
    assert refusal(net) == (
        "cannot reverse node 'y' (Concat)",
        "the size along axis 1 is known at run time only",
        "give the model a fixed input size",
    )
