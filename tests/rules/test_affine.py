"""Affine layers against their own matrix, found column by column: Eq. (6)."""

import numpy as np
import onnx
import pytest
from layers import assert_close, assert_transposed, refusal, reverse, weights
from networks import model, node, picture, run

import revgraph
from revgraph import reference

PADS = [1, 0, 2, 1]  # top, left, bottom, right

# id: shape of x, of the kernel, attributes
CONVOLUTIONS = {
    "1x1": ((3, 4, 5), (2, 3, 1, 1), {}),
    "3x3": ((3, 4, 5), (2, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    "even kernel, asymmetric pads": ((3, 4, 5), (2, 3, 2, 4), {"pads": PADS}),
    "pads wider than the kernel": ((1, 3, 3), (2, 1, 2, 2), {"pads": [3, 4, 4, 3]}),
    "dilated": ((2, 6, 7), (2, 2, 3, 2), {"dilations": [2, 3], "pads": PADS}),
    "strided": ((2, 7, 7), (3, 2, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "stride leaves a remainder": ((2, 8, 8), (3, 2, 3, 3), {"strides": [3, 2], "pads": [0, 1, 0, 0]}),
    "stride skips elements": ((2, 6, 8), (3, 2, 1, 2), {"strides": [3, 4]}),
    "strided and dilated": ((2, 9, 8), (2, 2, 2, 3), {"strides": [3, 2], "dilations": [2, 2], "pads": PADS}),
    "groups": ((4, 4, 4), (6, 2, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "depthwise": ((3, 5, 5), (3, 1, 3, 3), {"group": 3, "strides": [2, 2]}),
    "depthwise with a multiplier": ((3, 4, 4), (6, 1, 2, 2), {"group": 3}),
    "SAME_UPPER": ((2, 6, 5), (2, 2, 3, 2), {"strides": [2, 1], "auto_pad": "SAME_UPPER"}),
    "SAME_LOWER": ((2, 6, 5), (2, 2, 3, 2), {"strides": [2, 1], "auto_pad": "SAME_LOWER"}),
    "SAME where strides outrun the kernel": (
        (2, 5, 9),
        (2, 2, 1, 2),
        {"strides": [2, 3], "auto_pad": "SAME_UPPER"},
    ),
    "VALID": ((2, 6, 5), (2, 2, 3, 2), {"strides": [2, 1], "auto_pad": "VALID"}),
    "1-D": ((3, 9), (4, 3, 3), {"strides": [2], "dilations": [2], "pads": [2, 1]}),
    "1-D, SAME_LOWER": ((3, 8), (4, 3, 3), {"strides": [2], "auto_pad": "SAME_LOWER"}),
    "3-D": ((2, 4, 5, 3), (2, 2, 3, 2, 2), {"strides": [2, 1, 2], "pads": [1, 0, 1, 1, 1, 0]}),
    "3-D, groups": ((2, 3, 4, 3), (4, 1, 2, 2, 3), {"group": 2, "dilations": [2, 1, 1]}),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(case):
    shape, kernel, attributes = CONVOLUTIONS[case]
    tensors = {"w": weights(*kernel), "b": weights(kernel[0])}
    assert_transposed(model([node("Conv", "x w b", "y", **attributes)], ["N", *shape], tensors), *shape)


@pytest.mark.parametrize("variant", ["identity", "deconvnet", "desalinet", "salinet-centre"])
def test_every_variant_shares_the_affine_layers(variant):
    net = model([node("Conv", "x w", "y")], ["N", 2, 4, 4], {"w": weights(3, 2, 2, 2)})
    assert_transposed(net, 2, 4, 4, variant=variant)


# ----- Fully connected layers -----


@pytest.mark.parametrize("attributes", [{}, {"alpha": 0.5}, {"beta": 2.0}, {"alpha": -3.0, "beta": 0.0}])
@pytest.mark.parametrize("flag", [0, 1])
@pytest.mark.parametrize("bias", [(), (1,), (5,), (1, 5)])
def test_gemm(attributes, flag, bias):
    tensors = {"w": weights(5, 6) if flag else weights(6, 5), "b": np.ones(bias, np.float32)}
    nodes = [node("Flatten", "x", "flat"), node("Gemm", "flat w b", "y", transB=flag, **attributes)]
    assert_transposed(model(nodes, ["N", 3, 2], tensors), 3, 2)


@pytest.mark.parametrize(
    ("shape", "inputs", "kernel"),
    [
        pytest.param((3, 4), "x w", (4, 5), id="rank 3, right"),
        pytest.param((3, 4), "w x", (5, 3), id="rank 3, left"),
        pytest.param((2, 3, 4), "x w", (4, 5), id="rank 4, right"),
        pytest.param((2, 3, 4), "w x", (5, 3), id="rank 4, left"),
        pytest.param((2, 3, 4), "x w", (2, 4, 5), id="a matrix for each channel, right"),
        pytest.param((2, 3, 4), "w x", (2, 5, 3), id="a matrix for each channel, left"),
        pytest.param((1, 3, 4), "x w", (2, 4, 5), id="matrices that share their x, right"),
        pytest.param((1, 3, 4), "w x", (2, 5, 3), id="matrices that share their x, left"),
        pytest.param((2, 3, 4), "x w", (1, 1, 4, 5), id="a matrix of rank 4"),
    ],
)
def test_matmul(shape, inputs, kernel):
    net = model([node("MatMul", inputs, "y")], ["N", *shape], {"w": weights(*kernel)})
    assert_transposed(net, *shape)


def test_matmul_of_rank_2():
    nodes = [node("Flatten", "x", "flat"), node("MatMul", "flat w", "y")]
    assert_transposed(model(nodes, ["N", 3, 2], {"w": weights(6, 5)}), 3, 2)


def test_a_matrix_times_its_own_transpose():
    """y = x x^T, so x_hat = (y_hat + y_hat^T) x."""
    nodes = [node("Transpose", "x", "t", perm=[0, 2, 1]), node("MatMul", "x t", "y")]
    x, p = picture(2, 3, 5), picture(2, 3, 3, seed=1)
    x_hat = reverse(model(nodes, ["N", 3, 5]), x, p)
    assert_close(x_hat, (p + p.swapaxes(1, 2)).astype(np.float64) @ x)


# ----- Batch normalisation -----


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4), (3, 2, 2, 2)])
@pytest.mark.parametrize("attributes", [{}, {"epsilon": 0.5}])
def test_batch_normalisation(shape, attributes):
    rng = np.random.default_rng(0)
    tensors = {name: rng.uniform(0.1, 2, 3).astype(np.float32) for name in "gbmv"}
    tensors["g"][1] *= -1
    net = model([node("BatchNormalization", "x g b m v", "y", **attributes)], ["N", *shape], tensors)
    assert_transposed(net, *shape)


# ----- Refusals -----

KEEP_BATCH = "keep the batch on the first axis, or choose --at before this node"


def with_input(nodes, tensors, *shape):
    """A network of x and a second input z."""
    net = model([node("Identity", "x", "unused")], ["N", 2, 4, 4], tensors)
    del net.graph.node[:], net.graph.output[:]
    net.graph.node.extend(nodes)
    net.graph.input.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, shape))
    net.graph.output.append(onnx.helper.make_empty_tensor_value_info("y"))
    output = onnx.shape_inference.infer_shapes(net).graph.output[0]
    net.graph.output[0].CopyFrom(output)
    return net


@pytest.mark.parametrize(
    ("nodes", "shape", "what"),
    [
        ([node("Conv", "x z", "y")], (3, 2, 2, 2), "kernel"),
        ([node("Flatten", "x", "flat"), node("Gemm", "flat z", "y")], (32, 3), "weight"),
        ([node("BatchNormalization", "x z w w w", "y")], (2,), "scale"),
        ([node("BatchNormalization", "x w w w z", "y")], (2,), "variance"),
    ],
)
def test_weights_computed_at_run_time_are_refused(nodes, shape, what):
    net = with_input(nodes, {"w": np.ones(2, np.float32)}, *shape)
    assert refusal(net, input="x") == (
        f"cannot reverse node 'y' ({nodes[-1].op_type})",
        f"its {what} is computed at run time",
        "make 'z' an initializer, or choose --at before this node",
    )


@pytest.mark.parametrize(
    ("nodes", "shape"),
    [
        ([node("Conv", "x k z", "y")], (3,)),
        ([node("BatchNormalization", "x w z w w", "y")], (2,)),
        ([node("BatchNormalization", "x w w z w", "y")], (2,)),
        ([node("Flatten", "x", "flat"), node("Gemm", "flat m z", "y")], (3,)),
    ],
)
def test_biases_computed_at_run_time_are_dropped_like_others(nodes, shape):
    tensors = {"w": np.ones(2, np.float32), "k": weights(3, 2, 2, 2), "m": weights(32, 3)}
    net, z, x = with_input(nodes, tensors, *shape), weights(*shape), weights(1, 2, 4, 4)
    session = revgraph.Session(revgraph.compile(net, variant="salinet", input="x"), threads=1)
    trace = session.forward(x, z=z)
    p = weights(*trace.y.shape)
    values = reference.forward(net, {"x": x, "z": z})
    expected = reference.reverse(net, values, variant="salinet", at="y", to="x", p=p)["x"]
    assert_close(session.reverse(trace, p), expected)


MOVED = "transA moves the batch off the first axis"


@pytest.mark.parametrize(
    ("layer", "why", "remedy"),
    [
        (node("Gemm", "flat w", "y", transA=1), MOVED, KEEP_BATCH),
        (
            node("MatMul", "w flat", "y"),
            "it multiplies (12, 12) by [12, 12]",
            "multiply (N, ...) by a matrix on its last two axes",
        ),
        (
            node("MatMul", "flat flat", "y"),
            "it multiplies [12, 12] by [12, 12]",
            "multiply activations of the same rank, 3 or more",
        ),
        (
            node("Gemm", "flat w flat", "y"),
            "its input 'flat' depends on x, and only its data can be reversed",
            "choose --at before this node",
        ),
    ],
)
def test_what_is_not_a_weight_applied_to_each_image_is_refused(layer, why, remedy):
    # As many images as features, so that no shape gives the mixing away.
    net = model([node("Flatten", "x", "flat"), layer], [12, 3, 2, 2], {"w": weights(12, 12)})
    assert refusal(net) == (f"cannot reverse node 'y' ({layer.op_type})", why, remedy)


def test_output_padding_beyond_the_stride_is_refused():
    """Dilations allow it; the convolution back would give pixels that x does not have."""
    transposed = node("ConvTranspose", "x w", "y", dilations=[3, 3], output_padding=[2, 0])
    net = model([transposed], ["N", 3, 5, 6], {"w": weights(3, 4, 3, 3)})
    assert refusal(net) == (
        "cannot reverse node 'y' (ConvTranspose)",
        "its output padding is no less than its strides",
        "choose --at before this node",
    )


@pytest.mark.parametrize("attributes", [{"auto_pad": "SAME_UPPER"}, {"output_shape": [9, 11]}], ids=str)
def test_transposed_convolutions_without_pads_of_their_own_are_refused(attributes):
    transposed = node("ConvTranspose", "x w", "y", strides=[2, 2], **attributes)
    assert refusal(model([transposed], ["N", 3, 5, 6], {"w": weights(3, 4, 3, 3)})) == (
        "cannot reverse node 'y' (ConvTranspose)",
        "its pads follow from its output's size",
        "export it with explicit pads",
    )


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_transposed_convolutions_beyond_y_are_left_as_they_are(mode):
    nodes = [node("Relu", "x", "y"), node("ConvTranspose", "y w", "z", strides=[2, 2], auto_pad=mode)]
    net = model(nodes, ["N", 3, "H", "W"], {"w": weights(3, 4, 3, 4)}, outputs=["z"])
    pair, x = revgraph.compile(net, variant="salinet", at="y"), picture(2, 3, 5, 6)
    np.testing.assert_array_equal(run(pair.forward, x=x)["z"], run(net, x=x)["z"])


def test_transposed_convolution_without_padding():
    transposed = node("ConvTranspose", "x w", "y", strides=[2, 1], auto_pad="VALID")
    assert_transposed(model([transposed], ["N", 3, 4, 3], {"w": weights(3, 2, 3, 2)}), 3, 4, 3)


def test_batch_normalisation_in_training_mode_is_refused():
    norm = onnx.helper.make_node(
        "BatchNormalization", ["x", *"wwww"], ["y", "mean", "var"], name="y", training_mode=1
    )
    net = model([norm], ["N", 2, 3], {"w": np.ones(2, np.float32)}, outputs=["y"])
    assert refusal(net) == (
        "cannot reverse node 'y' (BatchNormalization)",
        "it is in training mode",
        "export the model for inference",
    )


@pytest.mark.parametrize("op", ["Conv", "AveragePool", "MaxPool"])
@pytest.mark.parametrize(
    ("window", "why"),
    [
        (
            {"kernel_shape": [2, 2], "dilations": [2, 2]},
            "onnxruntime ignores or refuses dilations beside auto_pad SAME",
        ),
        (
            {"kernel_shape": [1, 1], "strides": [4, 4]},
            "onnxruntime shifts pixels where auto_pad SAME has strides beyond the kernel",
        ),
    ],
)
def test_pads_that_onnxruntime_reads_otherwise_are_refused(op, window, why):
    layer = node(op, "x w" if op == "Conv" else "x", "y", auto_pad="SAME_UPPER", **window)
    kernel = weights(1, 1, *window["kernel_shape"])
    net = model([layer], ["N", 1, 8, 8], {"w": kernel} if op == "Conv" else None, opset=19)
    assert refusal(net) == (f"cannot take node 'y' ({op})", why, "export it with explicit pads")
