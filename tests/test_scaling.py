"""float16 signals stay in range however far they grow or shrink, row by row; where they meet none is lost.

Nodes are run one by one, for only then does onnxruntime's CPU keep them in float16.
"""

import numpy as np
import onnx
import pytest
from layers import NETS, assert_close, fire, reverse, weights
from networks import cnn, model, node, picture

import revgraph
from revgraph import compiler
from revgraph.graph import gs
from revgraph.runtime import run_each_node
from revgraph.scaling import GAINS
from revgraph.window import Window

ROUNDED = 1e-2
"""Of the largest number: some twenty layers, each to 2^-11."""


def halved(net: onnx.ModelProto, x: np.ndarray, p: np.ndarray, variant: str, **options: str) -> np.ndarray:
    """x_hat in true float16."""
    pair = revgraph.compile(net, variant=variant, precision="fp16", **options)
    forward = run_each_node(pair.forward, {"x": x})
    taps = {name: forward[name] for name in pair.taps}
    return run_each_node(pair.reversed, {"p": p, **taps})["x_hat"]


def agree(net: onnx.ModelProto, x: np.ndarray, p: np.ndarray, variant: str, **options: str) -> np.ndarray:
    """x_hat in float16, which is float32's, row by row."""
    found, expected = halved(net, x, p, variant, **options), reverse(net, x, p, variant)
    for row, whole in zip(found, expected, strict=True):
        assert_close(row, whole, ROUNDED)
    return found


def deep(size: float, layers: int = 16) -> onnx.ModelProto:
    """Positive kernels, so that a rectified signal adds up; each layer multiplies it by about `size`."""
    kernels = {f"w{i}": np.abs(weights(8, 8, 3, 3, i + 1)[..., 0]) for i in range(layers)}
    tensors = {name: w * np.float32(size / w.sum(axis=(0, 2, 3)).mean()) for name, w in kernels.items()}
    nodes = []
    for i in range(layers):
        nodes.append(node("Conv", f"{f'r{i - 1}' if i else 'x'} w{i}", f"c{i}", pads=[1] * 4))
        nodes.append(node("Relu", f"c{i}", f"r{i}"))
    return model(nodes, ["N", 8, 8, 8], tensors)


def small(x: np.ndarray) -> np.ndarray:
    """A picture for which the forward pass itself stays in float16."""
    return x * np.float32(2**-10)


@pytest.mark.parametrize("variant", ["deconvnet", "salinet", "identity-centre"])
@pytest.mark.parametrize("size", [100.0, 1 / 30])
def test_a_deep_signal_leaves_float16_and_x_hat_does_not(size, variant):
    net = deep(size)
    forward = deep(1.0)  # whose masks are as good as any
    x, p = np.abs(picture(1, 8, 8, 8)), picture(1, 8, 8, 8)
    pair = revgraph.compile(net, variant=variant, precision="fp16")
    taps = run_each_node(revgraph.compile(forward, variant=variant, precision="fp16").forward, {"x": x})
    given = {"p": p} | {name: taps[name] for name in pair.taps}
    x_hat = run_each_node(pair.reversed, given)["x_hat"]
    whole = run_each_node(revgraph.compile(net, variant=variant).reversed, given)["x_hat"]
    assert not 1e-20 < np.abs(whole).max() < 1e20
    assert_close(x_hat, whole, ROUNDED)


def test_each_row_has_its_own_scale():
    """Rows of one image 10^60 apart, and one of nothing."""
    net, x = cnn(softmax=False), picture(1, 3, 8, 8)
    sizes = np.array([1e-30, 1, 1e30, 0, 6e4], np.float32)
    x_hat = agree(net, x, picture(5, 5) * sizes[:, None], "desalinet")
    assert not x_hat[3].any()
    assert x_hat[[0, 1, 2, 4]].any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("size", [1e-4, 1e4])
@pytest.mark.parametrize("variant", ["salinet", "deconvnet"])
def test_branches_of_other_sizes_meet(variant, size):
    """One branch of a sum came by three large or small kernels, the other by none."""
    nodes = [
        node("Conv", "x w0", "a", pads=[1] * 4),
        node("Relu", "a", "r"),
        node("Conv", "r w1", "b", pads=[1] * 4),
        node("Conv", "b w2", "c", pads=[1] * 4),
        node("Add", "r c", "s"),
        node("Concat", "s b", "y", axis=1),
    ]
    tensors = {f"w{i}": weights(8, 8, 3, 3, i + 1)[..., 0] * np.float32(size if i else 1) for i in range(3)}
    p = picture(2, 16, 8, 8)
    p[1, 8:] *= 1e-3
    agree(model(nodes, ["N", 8, 8, 8], tensors), small(picture(2, 8, 8, 8)) * 2**-5, p, variant)


def test_a_branch_that_died_takes_nothing_with_it():
    """DeConvNet rectifies all of one branch away, after it grew; what it meets must not shrink for that."""
    tensors = {f"w{i}": np.abs(weights(4, 4, 3, 3, i + 1)[..., 0]) * np.float32(300) for i in range(4)}
    nodes = [node("Relu", "x", "r"), node("Relu", "r", "d"), node("Neg", "d", "c")]
    nodes += [node("Conv", f"{f'c{i - 1}' if i else 'c'} w{i}", f"c{i}", pads=[1] * 4) for i in range(4)]
    net = model([*nodes, node("Add", "c3 r", "y")], ["N", 4, 8, 8], tensors)
    x_hat = agree(net, small(picture(2, 4, 8, 8)) * 2**-20, np.abs(picture(2, 4, 8, 8)), "deconvnet")
    assert x_hat.any()


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("fused", [False, True])
def test_saved_fused_and_loaded(name, fused, tmp_path):
    net = NETS[name]()
    pair = revgraph.compile(net, variant="desalinet", precision="fp16")
    pair.save(tmp_path, fused=fused)
    loaded = revgraph.load(tmp_path)
    assert (loaded.scales, loaded.metadata["precision"]) == (pair.scales, "fp16")
    x = picture(2, *(dim.dim_value for dim in net.graph.input[0].type.tensor_type.shape.dim[1:]))
    sessions = [revgraph.Session(each, threads=1) for each in (pair, loaded)]
    traces = [session.forward(x) for session in sessions]
    p = picture(*traces[0].y.shape)
    first, second = (session.reverse(trace, p) for session, trace in zip(sessions, traces, strict=True))
    np.testing.assert_array_equal(first, second)


def test_sessions_show_signals_as_they_are():
    """Not as they are stored: what each layer gives is float32's."""
    net, x, p = fire(), picture(1, 3, 16, 14), 1e6 * picture(1, 4, 2, 2)
    pairs = [revgraph.compile(net, variant="identity-centre", precision=each) for each in compiler.PRECISIONS]
    whole, half = (dict(revgraph.Session(pair).layers(x, p)[1]) for pair in pairs)
    assert pairs[1].scales
    shared = whole.keys() & half.keys()
    assert len(shared) > 8
    for name in shared:
        assert_close(half[name], whole[name], ROUNDED)


def test_networks_that_are_float16_themselves_are_scaled_too():
    net = deep(30.0, layers=4)
    for tensor in net.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for value in (*net.graph.input, *net.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    pair = revgraph.compile(net, variant="identity")
    p = np.full((1, 8, 8, 8), 2**-5, np.float16)
    x_hat = run_each_node(pair.reversed, {"p": p})["x_hat"]
    assert x_hat.dtype == np.float16
    inner = {name: s for name, s in pair.scales.items() if name != "x_hat"}
    assert inner
    expected = reverse(deep(30.0, layers=4), picture(1, 8, 8, 8), p.astype(np.float32), "identity")
    expected[np.abs(expected) > 65504] = np.inf  # float16 has no such numbers, and says so
    np.testing.assert_allclose(x_hat, expected, rtol=0.05)


def test_float32_is_left_alone():
    pair = revgraph.compile(cnn(), variant="salinet")
    assert pair.scales == {}
    assert "ReduceMax" not in {n.op_type for n in pair.reversed.graph.node}


def test_sizes_known_at_run_time_only():
    """What the reversed graph computes from the shape of a signal does not grow with it."""
    tensors = {"v": weights(6, 3, 3, 3), "w": weights(5, 6, 3, 3)}
    nodes = [
        node("Conv", "x v", "a", pads=[1] * 4),
        node("Relu", "a", "r"),
        node("AveragePool", "r", "m", kernel_shape=[3, 3], pads=[1] * 4),
        node("Resize", "m  scales", "z", mode="linear"),
        node("Conv", "z w", "y"),
    ]
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    for opset in 17, 18:
        net = model(nodes, ["N", 3, "H", "W"], tensors | scales, opset=opset)
        for variant in "salinet", "deconvnet":
            agree(net, picture(2, 3, 8, 9), picture(2, 5, 14, 16), variant)


@pytest.mark.parametrize("opset", [17, 18])
def test_a_layer_of_one_number_for_each_image(opset):
    tensors = {"w": weights(1, 27)}
    nodes = [
        node("Flatten", "x", "f"),
        node("Gemm", "f w", "g", transB=1),
        node("Squeeze", "g one", "y"),
    ]
    net = model(nodes, ["N", 3, 3, 3], tensors | {"one": np.array([1])}, opset=opset)
    x_hat = agree(net, picture(1, 3, 3, 3), np.array([1e-9, 1, 0], np.float32), "salinet")
    assert x_hat[0].any()


def test_a_product_with_what_only_the_run_knows():
    """However large the factor: what comes out of it is brought back before the next layer."""
    kernel = weights(4, 4, 3, 3)
    tensors = {name: kernel * np.float32(30 / np.abs(kernel).sum(axis=(0, 2, 3)).max()) for name in "vw"}
    nodes = [
        node("Conv", "x v", "c", pads=[1] * 4),
        node("Mul", "c g", "m"),
        node("Conv", "m w", "y", pads=[1] * 4),
    ]
    net, shape = model(nodes, ["N", 4, 8, 8], tensors), ["N", 4, 8, 8]
    net.graph.input.append(onnx.helper.make_tensor_value_info("g", onnx.TensorProto.FLOAT, shape))
    net.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape))
    x, g = picture(1, 4, 8, 8) * np.float32(2**-12), np.full((1, 4, 8, 8), 3000, np.float32)
    results = {}
    for precision in compiler.PRECISIONS:
        pair = revgraph.compile(net, variant="salinet", input="x", precision=precision)
        forward = run_each_node(pair.forward, {"x": x, "g": g})
        given = {"p": np.ones((1, 4, 8, 8), np.float32)} | {name: forward[name] for name in pair.taps}
        results[precision] = run_each_node(pair.reversed, given)["x_hat"]
    assert_close(results["fp16"], results["fp32"], ROUNDED)


@pytest.mark.parametrize("size", [3e-5, 1e-6])
def test_signals_below_float16s_normal_numbers(size):
    """A row is divided by its own largest number, however small, or its scale would not be that."""
    net = model([node("Conv", "x w", "y")], ["N", 3, 6, 6], {"w": weights(4, 3, 3, 3)})
    for tensor in net.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for value in (*net.graph.input, *net.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    p = np.zeros((1, 4, 4, 4), np.float16)
    p[0, 0, 2, 2] = size
    pair = revgraph.compile(net, variant="identity")
    x_hat = run_each_node(pair.reversed, {"p": p})["x_hat"]
    largest = size * np.abs(weights(4, 3, 3, 3)[0]).max()  # of which float16 has a digit or two
    np.testing.assert_allclose(np.abs(x_hat).max(), largest, rtol=0.1)


def test_a_class_of_small_weights_is_as_good_as_any():
    weight = weights(5, 12).copy()
    weight[3] *= 1e-4
    nodes = [
        node("Conv", "x v", "c"),
        node("GlobalAveragePool", "c", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w", "y", transB=1),
    ]
    net = model(nodes, ["N", 3, 8, 8], {"v": weights(12, 3, 3, 3), "w": weight})
    p = np.zeros((1, 5), np.float32)
    p[0, 3] = 1
    agree(net, picture(1, 3, 8, 8), p, "salinet")


# ---------------------------------------------------------------- what a layer does to the largest number


def layer(op: str, *inputs: np.ndarray | gs.Tensor, shape: list[int], **attributes) -> gs.Node:
    tensors = [gs.Constant(f"t{i}", t) if isinstance(t, np.ndarray) else t for i, t in enumerate(inputs)]
    return gs.Node(op, "n", attributes, tensors, [gs.Variable("out", np.float32, shape)])


Y = gs.Variable("y_hat", np.float32, [1, 6, 5, 5])


@pytest.mark.parametrize("group", [1, 2, 6])
def test_no_signal_grows_more_than_its_kernels_sums(group):
    """The bound is attained: every sign as the kernel's."""
    weight = weights(6, 12 // group, 3, 3)
    gain = GAINS["ConvTransposed"](layer("ConvTransposed", Y, weight, shape=[1, 12, 7, 7], group=group))
    parts = np.abs(weight).reshape(group, 6 // group, 12 // group, 9)
    np.testing.assert_allclose(gain.most, parts.sum(axis=(1, 3)).max(), rtol=1e-6)
    net = model([node("Conv", "x w", "y", group=group)], ["N", 12, 7, 7], {"w": weight})
    worst = 0.0
    for c in range(12 // group):
        # From the windows that cover the middle, each tap in the sign of its weight.
        p = np.zeros((1, 6, 5, 5), np.float32)
        p[0, : 6 // group, 1:4, 1:4] = np.sign(weight[: 6 // group, c, ::-1, ::-1])
        worst = max(worst, np.abs(reverse(net, picture(1, 12, 7, 7), p))[0, c, 3, 3])
    np.testing.assert_allclose(worst, parts.sum(axis=(1, 3))[0].max(), rtol=1e-5)


@pytest.mark.parametrize("transposed", [0, 1])
def test_no_signal_grows_more_than_its_matrix(transposed):
    weight = weights(7, 5)
    node_ = layer("GemmTransposed", Y, weight, shape=[1, 7], transB=transposed, alpha=-2.0)
    # y = x W or x W^T, and x_hat[j] = 2 * sum over i of the W that joins the two.
    expected = 2 * np.abs(weight).sum(axis=0 if transposed else 1).max()
    gain = GAINS["GemmTransposed"](node_)
    np.testing.assert_allclose([gain.most, gain.least], [expected, 2 * np.abs(weight).max()], rtol=1e-6)


@pytest.mark.parametrize(("kernel", "stride", "most"), [([2, 2], 2, 1), ([3, 3], 2, 4), ([3, 3], 1, 9)])
def test_windows_that_meet_add_up(kernel, stride, most):
    window = Window.of({"kernel_shape": kernel, "strides": [stride] * 2})
    for op in "Unpool", "UnpoolCentre":
        assert GAINS[op](layer(op, Y, shape=[1, 6, 9, 9], **window.attributes)).most == most


def test_sums_over_axes_count_what_they_add():
    x = gs.Variable("x", np.float32, ["P", 3, 4, 5])
    assert GAINS["ReduceSum"](layer("ReduceSum", x, shape=["P", 3, 1, 1])).most == 20
    free = gs.Variable("x", np.float32, ["P", 3, "H", 5])
    assert GAINS["ReduceSum"](layer("ReduceSum", free, shape=["P", 3, 1, 1])).most == np.inf


def test_one_scale_serves_a_block():
    """Where a signal forks it is divided once, so that its branches meet again at one scale."""
    nodes, kernel = [node("Relu", "x", "r0")], weights(8, 8, 3, 3)
    for i in range(4):
        nodes += [
            node("Conv", f"r{i} w", f"a{i}", pads=[1] * 4),
            node("Relu", f"a{i}", f"b{i}"),
            node("Conv", f"b{i} w", f"c{i}", pads=[1] * 4),
            node("Add", f"c{i} r{i}", f"s{i}"),
            node("Relu", f"s{i}", f"r{i + 1}"),
        ]
    tensors = {"w": kernel * np.float32(20 / np.abs(kernel).sum(axis=(0, 2, 3)).max())}
    net = model(nodes, ["N", 8, 8, 8], tensors)
    found = revgraph.compile(net, variant="salinet", precision="fp16").reversed
    assert [n.op_type for n in found.graph.node].count("ReduceMax") == 4  # p, and where blocks meet
