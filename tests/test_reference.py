"""The reference against onnxruntime forward, and against derivatives and hand-computed examples reversed."""

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from revgraph import reference
from revgraph.errors import RevgraphError

Random: TypeAlias = Callable[[int, int], tuple[onnx.ModelProto, np.ndarray]]
RELUS = ("identity", "deconvnet", "salinet", "desalinet")
VARIANTS = [*RELUS, *(f"{relu}-centre" for relu in RELUS)]


def network(
    nodes: Sequence[onnx.NodeProto],
    x: np.ndarray,
    weights: Mapping[str, np.ndarray] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model from the input "x" to the output "y"."""
    inputs = [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)]
    outputs = [onnx.ValueInfoProto(name="y")]
    initializers = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()
    ]
    graph = helper.make_graph(nodes, "network", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def layer(op_type: str, *inputs: str, output: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs or ["x"], [output], **attributes)


def by_onnxruntime(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": np.asarray(x)})[0]


def forward(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return reference.forward(model, {"x": x})["y"]


def reverse(
    model: onnx.ModelProto, x: np.ndarray, p: np.ndarray, variant: str, lrn: str | None = None
) -> np.ndarray:
    tensors = reference.forward(model, {"x": x})
    return reference.reverse(model, tensors, variant=variant, at="y", to="x", p=p, lrn=lrn)["x"]


def signal(*values: float) -> np.ndarray:
    """One image of one channel, (1, 1, W)."""
    return np.array([[values]], np.float64)


def picture(*rows: Sequence[float]) -> np.ndarray:
    """One image of one channel, (1, 1, H, W)."""
    return np.array([[rows]], np.float64)


# ----- Forward, against onnxruntime -----


def random_window(op_type: str, rank: int, seed: int) -> tuple[onnx.ModelProto, np.ndarray]:
    """A convolution or pooling of random geometry that fits its picture, two images."""
    rng = np.random.default_rng([len(op_type), rank, seed])
    kernel, strides = (rng.integers(1, 5, rank).tolist() for _ in range(2))
    auto_pad = rng.choice(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
    attributes: dict[str, object] = {"kernel_shape": kernel, "auto_pad": auto_pad}
    if auto_pad == "NOTSET":
        attributes["pads"] = [int(rng.integers(k)) for k in kernel * 2]
    if auto_pad.startswith("SAME"):  # Strides that outrun the kernel, and dilations, are refused.
        strides = np.minimum(strides, kernel).tolist()
    elif rng.integers(2):
        attributes["dilations"] = rng.integers(1, 4, rank).tolist()
    if op_type != "Conv":
        attributes["ceil_mode"] = int(rng.integers(2))
    if op_type == "AveragePool":
        attributes["count_include_pad"] = int(rng.integers(2))
    if op_type == "LpPool":
        attributes["p"] = int(rng.integers(1, 4))
    groups, wide = rng.integers(1, 4), rng.integers(1, 3)
    x = rng.standard_normal((2, groups * wide, *rng.integers(10, 14, rank))).astype(np.float32)
    if op_type != "Conv":
        return network([layer(op_type, strides=strides, **attributes)], x, opset=19), x
    weights = {
        "F": rng.standard_normal((2 * groups, wide, *kernel), np.float32),
        "b": rng.standard_normal(2 * groups, np.float32),
    }
    return network([layer("Conv", "x", "F", "b", strides=strides, group=groups, **attributes)], x, weights), x


def random_transposed_window(rank: int, seed: int) -> tuple[onnx.ModelProto, np.ndarray]:
    """A transposed convolution of random geometry, two images."""
    rng = np.random.default_rng([rank, seed])
    kernel, strides = rng.integers(1, 5, rank), rng.integers(1, 4, rank)
    dilations, groups, wide, x_wide = rng.integers(1, 3, rank), *rng.integers(1, 3, 3)
    # onnxruntime refuses an output_padding that only the dilation allows.
    extra = rng.integers(strides) * rng.integers(2)
    x = rng.standard_normal((2, groups * x_wide, *rng.integers(3, 7, rank))).astype(np.float32)
    reach = (np.array(x.shape[2:]) - 1) * strides + dilations * (kernel - 1) + 1 + extra
    attributes: dict[str, object] = {"strides": strides, "dilations": dilations, "output_padding": extra}
    match rng.choice(["pads", "output_shape", "output_shape", "VALID", "SAME_UPPER", "SAME_LOWER"]):
        case "pads":
            attributes["pads"] = [int(rng.integers(min(3, n // 2))) for n in [*reach, *reach]]
        case "output_shape":
            attributes["output_shape"] = rng.integers(np.maximum(reach - 4, 1), reach + (strides > kernel))
            attributes["auto_pad"] = rng.choice(["NOTSET", "SAME_UPPER", "SAME_LOWER"])
        case auto_pad:
            attributes["auto_pad"] = auto_pad
    weights = {
        "F": rng.standard_normal((groups * x_wide, wide, *kernel), np.float32),
        "b": rng.standard_normal(groups * wide, np.float32),
    }
    opset = int(rng.choice([10, 11, 22]))
    return network([layer("ConvTranspose", "x", "F", "b", group=groups, **attributes)], x, weights, opset), x


def random_pad(rank: int, seed: int) -> tuple[onnx.ModelProto, np.ndarray]:
    """Of random widths, negative ones among them, by attribute, by input, and of some axes."""
    rng = np.random.default_rng([rank, seed])
    opset = int(rng.choice([10, 11, 18, 19, 23]))
    mode = rng.choice(["constant", "reflect", "edge", *["wrap"] * (opset >= 19)])
    x, pads = rng.standard_normal(rng.integers(4, 7, rank), np.float32), rng.integers(-1, 3, (2, rank))
    if opset < 11:
        return network([layer("Pad", mode=mode, pads=pads.ravel(), value=1.5)], x, opset=opset), x
    weights = {"pads": pads.ravel(), "value": np.array(2.5, np.float32)}
    if opset >= 18:
        weights["axes"] = rng.permutation(rank)[: rng.integers(1, rank + 1)]
        weights["pads"] = pads[:, weights["axes"]].ravel()
    return network([layer("Pad", "x", *weights, mode=mode)], x, weights, opset), x


WINDOWS = [
    (op, rank, seed)
    for op in ("Conv", "MaxPool", "AveragePool", "LpPool")
    for rank in (1, 2, 3)
    for seed in range(40)
]


@pytest.mark.parametrize(("op_type", "rank", "seed"), WINDOWS)
def test_windows_agree_with_onnxruntime(op_type: str, rank: int, seed: int) -> None:
    model, x = random_window(op_type, rank, seed)
    y = by_onnxruntime(model, x)
    # float32 sums of at most a few hundred products of unit variance
    np.testing.assert_allclose(forward(model, x), y, rtol=1e-5, atol=1e-5)


RANKED = [(rank, seed) for rank in (1, 2, 3) for seed in range(40)]


@pytest.mark.parametrize(("rank", "seed"), RANKED)
@pytest.mark.parametrize("random", [random_transposed_window, random_pad])
def test_transposed_windows_and_pads_agree_with_onnxruntime(random: Random, rank: int, seed: int) -> None:
    model, x = random(rank, seed)
    # as above
    np.testing.assert_allclose(forward(model, x), by_onnxruntime(model, x), rtol=1e-5, atol=1e-5)


RNG = np.random.default_rng(0)
CUBE = RNG.standard_normal((2, 6, 3, 4)).astype(np.float32)
FLAT = RNG.standard_normal((2, 6)).astype(np.float32)
INTS = np.array([[-7, 7, 8]])
PLUS = RNG.uniform(0.5, 3, (2, 4, 4, 6)).astype(np.float32)


def floats(*shape: int) -> np.ndarray:
    return np.asarray(RNG.uniform(0.5, 1.5, shape), np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


OPERATORS = [
    (17, CUBE, layer("Conv", *"xf", strides=[1, 2], auto_pad="SAME_UPPER"), {"f": floats(2, 6, 1, 1)}),
    (17, CUBE, layer("LRN", size=5, alpha=0.7, beta=0.6, bias=1.3), {}),
    (17, CUBE, layer("LRN", size=3), {}),
    (17, CUBE, layer("BatchNormalization", *"xsbmv"), {name: floats(6) for name in "sbmv"}),
    (8, CUBE, layer("BatchNormalization", *"xsbmv", epsilon=0.1), {name: floats(6) for name in "sbmv"}),
    (17, CUBE, layer("GlobalAveragePool"), {}),
    (17, CUBE, layer("Relu"), {}),
    (7, FLAT, layer("Gemm", *"xbc", alpha=2.0, beta=3.0), {"b": floats(6, 5), "c": floats(5)}),
    (17, FLAT, layer("Gemm", *"xb", transA=1, transB=1), {"b": floats(5, 2)}),
    (17, FLAT, layer("MatMul", *"xb"), {"b": floats(6, 5)}),
    (17, CUBE, layer("MatMul", *"bx"), {"b": floats(6, 5, 3)}),
    (17, CUBE, layer("MatMul", *"xb"), {"b": floats(4)}),
    (17, CUBE, layer("MatMul", *"bx"), {"b": floats(3)}),
    (17, CUBE[0, 0], layer("MatMul", *"xb"), {"b": floats(2, 6, 4, 5)}),
    (17, CUBE[:, :1], layer("MatMul", *"bx"), {"b": floats(6, 5, 3)}),
    (17, FLAT[0], layer("MatMul", *"xb"), {"b": floats(6, 5)}),
    (17, FLAT[0], layer("MatMul", *"xb"), {"b": floats(3, 6, 5)}),
    (17, FLAT[0], layer("MatMul", *"bx"), {"b": floats(3, 5, 6)}),
    (17, FLAT, layer("Gemm", *"bxc", alpha=2.0, transA=1, transB=1), {"b": floats(6, 5), "c": floats(2)}),
    (17, FLAT, layer("Gemm", *"bx", alpha=0.5), {"b": floats(5, 2)}),
    (17, FLAT, layer("Gemm", *"abx", beta=3.0), {"a": floats(2, 5), "b": floats(5, 6)}),
    (17, FLAT[:1], layer("Gemm", *"abx", beta=3.0), {"a": floats(2, 5), "b": floats(5, 6)}),
    (17, CUBE, layer("Add", *"xb"), {"b": floats(6, 1, 4)}),
    (17, FLAT, layer("Add", *"xb"), {"b": floats(3, 1, 6)}),
    (17, CUBE[:, :, :1], layer("Add", *"bx"), {"b": floats(6, 3, 1)}),
    (17, CUBE, layer("Sum", *"xbc"), {"b": floats(4), "c": floats(1, 6, 1, 1)}),
    (17, CUBE, layer("Sub", *"bx"), {"b": floats(3, 1)}),
    (17, CUBE, layer("Mul", *"xb"), {"b": floats(6, 1, 1)}),
    (17, CUBE, layer("Div", *"xb"), {"b": floats(6, 1, 1)}),
    (17, INTS, layer("Div", *"xb"), {"b": ints(2)}),
    (17, CUBE, layer("Concat", *"xbx", axis=1), {"b": floats(2, 2, 3, 4)}),
    (17, CUBE, layer("Concat", *"xx", axis=-1), {}),
    (17, CUBE, layer("Flatten"), {}),
    (17, CUBE, layer("Flatten", axis=-1), {}),
    (17, CUBE, layer("Flatten", axis=0), {}),
    (7, CUBE, layer("Reshape", *"xs"), {"s": ints(0, -1, 2)}),
    (17, CUBE, layer("Transpose", perm=[0, 2, 3, 1]), {}),
    (17, CUBE, layer("Transpose"), {}),
    (17, CUBE, layer("Dropout"), {}),
    (17, CUBE, layer("Identity"), {}),
    (12, CUBE, layer("Softmax"), {}),
    (11, CUBE, layer("LogSoftmax", axis=2), {}),
    (13, CUBE, layer("Softmax"), {}),
    (17, CUBE, layer("LogSoftmax", axis=1), {}),
    (17, CUBE, layer("Gather", *"xi", axis=1), {"i": np.array([[2, -1], [0, 2]])}),
    (17, CUBE, layer("Gather", *"xi"), {"i": np.array(1)}),
    (11, CUBE, layer("Unsqueeze", axes=[1, -1]), {}),
    (17, CUBE, layer("Unsqueeze", *"xa"), {"a": ints(0, 3)}),
    (11, CUBE[:, :1], layer("Squeeze", axes=[1]), {}),
    (17, CUBE[:1, :1], layer("Squeeze"), {}),
    (17, CUBE[:1, :1], layer("Squeeze", *"xa"), {"a": ints(-3)}),
    (9, CUBE, layer("Slice", starts=[1], ends=[-1], axes=[1]), {}),
    (17, CUBE, layer("Slice", *"xse"), {"s": ints(0, 2), "e": ints(9, -1)}),
    (17, CUBE, layer("Slice", *"xseat"), {"s": ints(9), "e": ints(-99), "a": ints(1), "t": ints(-2)}),
    (17, CUBE, layer("Cast", to=onnx.TensorProto.INT32), {}),
    (17, INTS, layer("Cast", to=onnx.TensorProto.FLOAT), {}),
    (17, CUBE, layer("CastLike", *"xi"), {"i": ints(1)}),
    (17, CUBE, layer("Sub", *"xx"), {}),
    (17, PLUS, layer("Mul", *"xx"), {}),
    (17, PLUS, layer("Div", *"bx"), {"b": floats(4, 1, 1)}),
    (17, CUBE, layer("Abs"), {}),
    (17, CUBE, layer("Neg"), {}),
    (17, CUBE, layer("Exp"), {}),
    (17, PLUS, layer("Log"), {}),
    (17, PLUS, layer("Sqrt"), {}),
    (17, PLUS, layer("Reciprocal"), {}),
    (12, PLUS, layer("Pow", *"xe"), {"e": np.array(2.5, np.float32)}),
    (17, CUBE, layer("Pow", *"xe"), {"e": np.array(3)}),
    (17, CUBE, layer("Max", *"xb"), {"b": floats(6, 1, 1) - 1}),
    (8, CUBE, layer("Min", *"xbc"), {"b": floats(6, 1, 1) - 1, "c": floats(1)}),
    (17, CUBE, layer("Max"), {}),
    (17, CUBE[:, :, :1], layer("Max", *"bxc"), {"b": floats(1, 6, 5, 4) - 1, "c": floats(2, 1, 1, 4) - 1}),
    (17, CUBE, layer("Where", *"kxb"), {"k": RNG.random((3, 4)) < 0.5, "b": floats(6, 1, 1)}),
    (17, CUBE, layer("Where", *"kbx"), {"k": RNG.random((3, 4)) < 0.5, "b": floats(6, 1, 1)}),
    (17, CUBE, layer("ReduceMean", axes=[2, -1]), {}),
    (18, CUBE, layer("ReduceMean", *"xa", keepdims=0), {"a": ints(1)}),
    (11, CUBE, layer("ReduceSum", axes=[0], keepdims=0), {}),
    (17, CUBE, layer("ReduceSum", *"xa", keepdims=0), {"a": ints(1, -1)}),
    (17, CUBE, layer("ReduceSum"), {}),
    (17, CUBE, layer("ReduceSum", *"xa", noop_with_empty_axes=1), {"a": ints()}),
    (17, CUBE, layer("ReduceMax", axes=[1]), {}),
    (18, CUBE, layer("ReduceMin", *"xa"), {"a": ints(1)}),
    (13, CUBE, layer("ReduceMin", axes=[-1, 2], keepdims=0), {}),
    (18, CUBE, layer("ReduceMax", *"xa", keepdims=0), {"a": ints(3, 1)}),
    (20, CUBE, layer("ReduceMax"), {}),
    (18, CUBE, layer("ReduceMax", *"xa", noop_with_empty_axes=1), {"a": ints()}),
    (17, CUBE, layer("ReduceL1", axes=[1, 3]), {}),
    (18, CUBE, layer("ReduceL2", *"xa", keepdims=0), {"a": ints(1)}),
    (13, CUBE, layer("ReduceL2", axes=[-1]), {}),
    (18, CUBE, layer("ReduceSumSquare", *"xa"), {"a": ints(2, 3)}),
    (17, PLUS, layer("ReduceLogSum", axes=[1], keepdims=0), {}),
    (17, CUBE, layer("ReduceLogSumExp", axes=[1, 2]), {}),
    (17, CUBE, layer("ReduceProd", axes=[1], keepdims=0), {}),
    (17, CUBE, layer("GlobalMaxPool"), {}),
    (17, CUBE, layer("GlobalLpPool"), {}),
    (17, CUBE, layer("GlobalLpPool", p=3), {}),
    (28, CUBE[:, :, :, 0], layer("GlobalMaxPool"), {}),
    (7, PLUS, layer("DepthToSpace", blocksize=2), {}),
    (11, PLUS, layer("DepthToSpace", blocksize=2, mode="CRD"), {}),
    (13, PLUS, layer("SpaceToDepth", blocksize=2), {}),
    (28, PLUS, layer("SpaceToDepth", blocksize=2, mode="CRD"), {}),
    (17, CUBE, layer("InstanceNormalization", *"xsb", epsilon=0.1), {"s": floats(6), "b": floats(6)}),
    (22, CUBE, layer("InstanceNormalization", *"xsb"), {"s": floats(6), "b": floats(6)}),
    (18, CUBE, layer("GroupNormalization", *"xsb", num_groups=2), {"s": floats(2), "b": floats(2)}),
    (21, CUBE, layer("GroupNormalization", *"xsb", num_groups=2), {"s": floats(6), "b": floats(6)}),
    (17, CUBE, layer("LayerNormalization", *"xsb"), {"s": floats(4), "b": floats(4)}),
    (17, CUBE, layer("LayerNormalization", *"xs", axis=1), {"s": floats(6, 3, 4)}),
    (17, CUBE, layer("LayerNormalization", *"xsb", axis=2, epsilon=0.1), {"s": floats(3, 1), "b": floats(4)}),
    (17, CUBE, layer("LpNormalization"), {}),
    (17, CUBE, layer("LpNormalization", p=1, axis=1), {}),
    (22, CUBE, layer("LpNormalization", axis=-2), {}),
    (13, CUBE, layer("MeanVarianceNormalization"), {}),
    (13, CUBE, layer("MeanVarianceNormalization", axes=[2, -1]), {}),
    (17, CUBE, layer("MeanVarianceNormalization", axes=[0, 1, 2, 3]), {}),
    (23, CUBE, layer("RMSNormalization", *"xs"), {"s": floats(4)}),
    (23, CUBE, layer("RMSNormalization", *"xs", axis=1, epsilon=0.1), {"s": floats(6, 1, 4)}),
    (17, CUBE[:, :1], layer("Expand", *"xs"), {"s": ints(2, 6, 1, 4)}),
    (17, CUBE, layer("Expand", *"xs"), {"s": ints(5, 1, 1, 1, 1)}),
    (17, CUBE, layer("Tile", *"xr"), {"r": ints(1, 2, 1, 3)}),
    (17, CUBE, layer("Shape", start=1, end=-1), {}),
    (17, CUBE, layer("Size"), {}),
    (17, CUBE, layer("Floor"), {}),
    (17, CUBE, layer("Ceil"), {}),
    (17, CUBE, layer("Round"), {}),
    (17, INTS, layer("Equal", *"xb"), {"b": ints(7)}),
    (17, CUBE, layer("Greater", *"xb"), {"b": floats(6, 1, 1)}),
    (17, CUBE, layer("LessOrEqual", *"xb"), {"b": floats(6, 1, 1)}),
    (17, INTS[0, 1], layer("Range", *"bxd"), {"b": np.array(-4), "d": np.array(3)}),
    (17, floats(), layer("Range", *"bxd"), {"b": np.float32(-1), "d": np.float32(0.25)}),
    (11, CUBE, layer("Shape"), {}),
    (17, INTS[0, 1:], layer("ConstantOfShape"), {}),
    (17, INTS[0, 1:], layer("ConstantOfShape", value=numpy_helper.from_array(ints(3))), {}),
]


def operator_id(parameter: object) -> str:
    return getattr(parameter, "op_type", "")


@pytest.mark.parametrize(("opset", "x", "node", "weights"), OPERATORS, ids=operator_id)
def test_operators_agree_with_onnxruntime(
    opset: int, x: np.ndarray, node: onnx.NodeProto, weights: dict[str, np.ndarray]
) -> None:
    model = network([node], x, weights, opset)
    want, got = by_onnxruntime(model, x), forward(model, x)
    assert got.dtype == (np.float64 if want.dtype == np.float32 else want.dtype)
    # float32 rounding of one operator
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attribute", [{"value_float": 0.5}, {"value_floats": [0.5]}, {"value_int": 3}])
def test_constants_are_read(attribute: dict[str, object]) -> None:
    x = floats(2)
    model = network([helper.make_node("Constant", [], ["y"], **attribute), layer("Identity", output="z")], x)
    np.testing.assert_array_equal(forward(model, x), by_onnxruntime(model, x))


# ----- Reversed by back-propagation, against derivatives (Eq. 3) -----


def assert_derivative(model: onnx.ModelProto, x: np.ndarray) -> None:
    """SaliNet with LRN by BP is the derivative of <p, phi(x)>, here by central differences along v."""
    rng, x, step = np.random.default_rng(1), x.astype(np.float64), 1e-6
    p, v = rng.standard_normal(forward(model, x).shape), rng.standard_normal(x.shape)
    slope = (p * (forward(model, x + step * v) - forward(model, x - step * v))).sum() / (2 * step)
    x_hat = reverse(model, x, p, "salinet", lrn="bp")
    assert x_hat.shape == x.shape
    np.testing.assert_allclose((x_hat * v).sum(), slope, rtol=1e-6)


@pytest.mark.parametrize(("op_type", "rank", "seed"), WINDOWS)
def test_windows_reverse_to_their_derivative(op_type: str, rank: int, seed: int) -> None:
    assert_derivative(*random_window(op_type, rank, seed))


@pytest.mark.parametrize(("rank", "seed"), RANKED)
@pytest.mark.parametrize("random", [random_transposed_window, random_pad])
def test_transposed_windows_and_pads_reverse_to_their_derivative(
    random: Random, rank: int, seed: int
) -> None:
    assert_derivative(*random(rank, seed))


ONLY_FORWARD = {
    *("Cast", "CastLike", "Ceil", "ConstantOfShape", "Equal", "Floor", "Greater", "LessOrEqual", "Range"),
    *("ReduceProd", "Round", "Shape", "Size"),
}
DIFFERENTIABLE = [row for row in OPERATORS if row[1] is not INTS and row[2].op_type not in ONLY_FORWARD]


@pytest.mark.parametrize(("opset", "x", "node", "weights"), DIFFERENTIABLE, ids=operator_id)
def test_operators_reverse_to_their_derivative(
    opset: int, x: np.ndarray, node: onnx.NodeProto, weights: dict[str, np.ndarray]
) -> None:
    assert_derivative(network([node], x, weights, opset), x)


def nodes_of(*lines: str) -> list[onnx.NodeProto]:
    """Nodes from lines such as "y = Concat a b axis=1"."""
    return [_node_of(*line.split(" = ")) for line in lines]


def _node_of(output: str, call: str) -> onnx.NodeProto:
    op_type, *words = call.split()
    attributes = dict(word.split("=") for word in words if "=" in word)
    inputs = [word for word in words if "=" not in word]
    values = {name: ast.literal_eval(value) for name, value in attributes.items()}
    return helper.make_node(op_type, inputs, output.split(), **values)


TOGETHER = [
    pytest.param(CUBE, ["e = Tanh x", "f = MatMul w e", "y = MatMul x f"], id="MatMul"),
    pytest.param(CUBE, ["e = ReduceMax x", "f = Mul e w", "y = MatMul x f"], id="MatMul, one stretched"),
    pytest.param(FLAT[0], ["e = Exp x", "f = MatMul x e", "y = Reshape f one"], id="MatMul, two vectors"),
    pytest.param(FLAT[0], ["e = Mul m x", "y = MatMul e x"], id="MatMul by a vector of the picture"),
    pytest.param(FLAT[0], ["e = Mul m x", "f = Transpose e", "y = MatMul x f"], id="a vector by a MatMul"),
    pytest.param(FLAT, ["e = Tanh x", "f = Transpose e", "s = ReduceMean x", "y = Gemm x f s"], id="Gemm"),
    pytest.param(CUBE, ["e = Neg x", "f = Tanh e", "y = Max e x f"], id="Max"),
    pytest.param(CUBE, ["e = Neg x", "f = Softmax x", "y = Min x e c f"], id="Min with a constant"),
    pytest.param(CUBE, ["e = ReduceMean x", "y = Max e x"], id="Max, one stretched"),
    pytest.param(CUBE, ["k = Greater x c", "e = Exp x", "y = Where k e x"], id="Where"),
    pytest.param(CUBE, ["e = ReduceMean x", "k = Less e x", "y = Where k e x"], id="Where, one stretched"),
    pytest.param(CUBE, ["k = Less x c", "e = CastLike k x", "y = Mul e x"], id="a mask"),
]  # fmt: skip


@pytest.mark.parametrize(("x", "lines"), TOGETHER)
def test_operands_that_all_come_from_the_picture_reverse_to_their_derivative(
    x: np.ndarray, lines: list[str]
) -> None:
    rng = np.random.default_rng(9)
    shapes = {"w": (4, 3), "m": (5, 6), "c": (6, 1, 1)}
    weights = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    model = network(nodes_of(*lines), x, {**weights, "one": ints(1)})
    # float32 sums of a few products
    np.testing.assert_allclose(forward(model, x), by_onnxruntime(model, x), rtol=1e-5, atol=1e-5)
    assert_derivative(model, x)


@pytest.mark.parametrize(("op_type", "flip"), [("Max", 1), ("Min", -1)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_extreme_operand_gets_all(op_type: str, flip: int, variant: str) -> None:
    """Operands a = x, the constant b, and c = 3 - x."""
    x, b, p = np.array([[1.0, 2.0, 0.0, 1.5]]), np.array([2.0, 2.0, 3.0, 0.0]), np.array([[5.0, 6, 7, 8]])
    lines = ["t = Mul x s", "e = Sub three x", "c = Mul e s", f"y = {op_type} t b c"]
    model = network(nodes_of(*lines), x, {"b": flip * b, "s": np.array(1.0 * flip), "three": np.array(3.0)})
    # 1, 2, 2: the constant; 2, 2, 1: a; 0, 3, 3: the constant; 1.5, 0, 1.5: a
    np.testing.assert_array_equal(reverse(model, x, p, variant), flip * np.array([[0.0, 6, 0, 8]]))


def branching_network(x: np.ndarray) -> onnx.ModelProto:
    """Convolution, LRN, overlapping poolings, a residual, a fan-out joined by Concat, and a classifier."""
    rng = np.random.default_rng(3)
    weights = {
        "F1": rng.standard_normal((4, 3, 3, 3)), "b1": rng.standard_normal(4),
        "F2": rng.standard_normal((4, 2, 3, 3)), "b2": rng.standard_normal(4),
        "W": rng.standard_normal((5, 8)), "b": rng.standard_normal(5),
        **{name: rng.uniform(0.5, 1.5, 4) for name in ("s", "o", "m", "v")},
    }  # fmt: skip
    nodes = [
        layer("Conv", "x", "F1", "b1", output="conv1", pads=[1, 1, 1, 1]),
        layer("LRN", "conv1", output="norm1", size=3, alpha=0.5, beta=0.75, bias=1.0),
        layer("Relu", "norm1", output="relu1"),
        layer("MaxPool", "relu1", output="pool1", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        layer("Conv", "pool1", "F2", "b2", output="conv2", pads=[1, 1, 1, 1], group=2),
        layer("BatchNormalization", "conv2", "s", "o", "m", "v", output="batch2"),
        layer("Add", "batch2", "pool1", output="sum2"),
        layer("Relu", "sum2", output="relu2"),
        layer("AveragePool", "relu2", output="mean", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        layer("MaxPool", "relu2", output="max", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        layer("Concat", "mean", "max", output="both", axis=1),
        layer("GlobalAveragePool", "both", output="global"),
        layer("Flatten", "global", output="flat"),
        layer("Gemm", "flat", "W", "b", transB=1),
    ]
    return network(nodes, x, {name: value.astype(np.float32) for name, value in weights.items()})


IMAGES = np.random.default_rng(4).standard_normal((3, 3, 10, 9)).astype(np.float32)


def test_a_branching_network_agrees_with_onnxruntime_and_reverses_to_its_derivative() -> None:
    model = branching_network(IMAGES)
    # float32 rounding through fourteen layers
    np.testing.assert_allclose(forward(model, IMAGES), by_onnxruntime(model, IMAGES), rtol=1e-4, atol=1e-4)
    assert_derivative(model, IMAGES)


def test_shapes_computed_in_the_graph_are_constants() -> None:
    x = CUBE.astype(np.float64)
    nodes = [
        layer("Shape", "x", output="shape"),
        layer("Gather", "shape", "first", output="n"),
        layer("Concat", "n", "rest", output="sizes", axis=0),
        layer("Reshape", "x", "sizes"),
    ]
    model = network(nodes, x, {"first": ints(0), "rest": ints(-1)})
    np.testing.assert_array_equal(reverse(model, x, forward(model, x), "salinet"), x)


def test_sizes_computed_in_the_graph_are_constants() -> None:
    x = CUBE.astype(np.float64)
    nodes = [
        layer("Size", "x", output="size"),
        layer("Cast", "size", output="n", to=onnx.TensorProto.DOUBLE),
        layer("Div", "x", "n"),
    ]
    model = network(nodes, x)
    np.testing.assert_allclose(reverse(model, x, x, "salinet"), x / x.size, rtol=1e-15)


# ----- Reversed, by hand -----


@pytest.mark.parametrize(
    ("variant", "x_hat"),
    [
        ("identity", signal(3, -5, 7, 6)),
        ("deconvnet", signal(3, 0, 7, 6)),
        ("salinet", signal(0, -5, 0, 6)),
        ("desalinet", signal(0, 0, 0, 6)),
    ],
)
def test_relu_reverses_by_eqs_7_and_10_and_the_mask_is_strict(variant: str, x_hat: np.ndarray) -> None:
    x, p = signal(0, 2, -1, 4), signal(3, -5, 7, 6)
    np.testing.assert_array_equal(reverse(network([layer("Relu")], x), x, p, variant), x_hat)


@pytest.mark.parametrize(
    ("variant", "attributes", "x", "p", "x_hat"),
    [
        pytest.param("salinet", {"kernel_shape": [2, 2]}, picture([1, 2], [2, 2]), picture([5]),
                     picture([0, 5], [0, 0]), id="ties go to the first in row-major order"),
        pytest.param("salinet", {"kernel_shape": [3]}, signal(1, 2, 9, 2, 1), signal(5, 6, 7),
                     signal(0, 0, 18, 0, 0), id="overlapping windows add"),
        pytest.param("salinet", {"kernel_shape": [2], "pads": [1, 1]}, signal(-3, -4), signal(5, 6, 7),
                     signal(11, 7), id="padding is never a switch"),
        pytest.param("salinet", {"kernel_shape": [2], "strides": [2], "ceil_mode": 1}, signal(0, 1, 0),
                     signal(5, 6), signal(0, 5, 6), id="a rounded-up window sees what is left"),
        pytest.param("salinet-centre", {"kernel_shape": [2, 2]}, picture([1, 2], [3, 4]), picture([5]),
                     picture([5, 0], [0, 0]), id="the centre of 2x2 is top-left"),
        pytest.param("salinet-centre", {"kernel_shape": [3, 3]}, np.ones((1, 1, 3, 3)), picture([5]),
                     picture([0, 0, 0], [0, 5, 0], [0, 0, 0]), id="the centre of 3x3 is the middle"),
        pytest.param("salinet-centre", {"kernel_shape": [4], "dilations": [2]}, signal(*range(7)), signal(5),
                     signal(0, 0, 5, 0, 0, 0, 0), id="dilation moves the centre"),
        pytest.param("salinet-centre", {"kernel_shape": [2], "pads": [1, 1]}, signal(1, 2), signal(5, 6, 7),
                     signal(6, 7), id="a centre in the padding is dropped"),
        pytest.param("salinet-centre", {"kernel_shape": [3], "strides": [2], "ceil_mode": 1},
                     signal(1, 2, 3, 4), signal(5, 6),
                     signal(0, 5, 0, 6), id="an overhang keeps its centre"),
        pytest.param("salinet-centre", {"kernel_shape": [3], "strides": [3], "ceil_mode": 1},
                     signal(1, 2, 3, 4), signal(5, 6),
                     signal(0, 5, 0, 0), id="a centre outside is dropped"),
    ],
)  # fmt: skip
def test_max_pooling_reverses_by_hand(
    variant: str, attributes: dict[str, object], x: np.ndarray, p: np.ndarray, x_hat: np.ndarray
) -> None:
    np.testing.assert_array_equal(reverse(network([layer("MaxPool", **attributes)], x), x, p, variant), x_hat)


@pytest.mark.parametrize("variant", VARIANTS)
def test_lrn_reverses_by_back_propagation_in_salinet_alone(variant: str) -> None:
    x, p = np.array([[2.0, 0.0]]).reshape(1, 2, 1), np.array([[1.0, 1.0]]).reshape(1, 2, 1)
    model = network([layer("LRN", size=3, alpha=3.0, beta=1.0, bias=1.0)], x)
    # Both channels see both: D = 1 + 2^2 + 0^2 = 5, so 1/5 - 2 * 2 * (1 * 2 / 25) and 1/5.
    bp, identity = np.array([[0.2 - 8 / 25, 0.2]]).reshape(1, 2, 1), p
    np.testing.assert_allclose(reverse(model, x, p, variant), bp if variant == "salinet" else identity)
    np.testing.assert_allclose(reverse(model, x, p, variant, lrn="bp"), bp)
    np.testing.assert_allclose(reverse(model, x, p, variant, lrn="identity"), identity)


def test_lrn_of_an_even_size_reaches_one_channel_further_up() -> None:
    x = np.array([[1.0, 2.0, 3.0]]).reshape(1, 3, 1)
    model = network([layer("LRN", size=2, alpha=2.0, beta=1.0, bias=0.0)], x)
    np.testing.assert_allclose(forward(model, x).ravel(), [1 / 5, 2 / 13, 3 / 9])
    assert_derivative(model, x)


@pytest.mark.parametrize(
    ("variant", "x_hat"),
    [("salinet", [[0, 0, 0], [5, 0, 0]]), ("salinet-centre", [[0, 5, 0], [0, 0, 0]])],
)
def test_global_max_pooling_reverses_by_hand(variant: str, x_hat: list[list[float]]) -> None:
    x = np.array([[[[1.0, 2.0, 0.0], [3.0, 3.0, 1.0]]]])
    model = network([layer("GlobalMaxPool")], x)
    np.testing.assert_array_equal(reverse(model, x, np.full((1, 1, 1, 1), 5.0), variant), [[x_hat]])


@pytest.mark.parametrize("output", [1, 2])
def test_statistics_of_layer_normalization_run_forward_only(output: int) -> None:
    names = ["n", "m", "i"]
    node = helper.make_node("LayerNormalization", ["x", "s"], names, axis=2, epsilon=0.5)
    model = network([node, layer("Identity", names[output])], CUBE, {"s": floats(4)})
    # float32 rounding of one operator
    np.testing.assert_allclose(forward(model, CUBE), by_onnxruntime(model, CUBE), rtol=1e-5, atol=1e-6)
    with pytest.raises(RevgraphError, match=f"its output '{names[output]}' is used"):
        reverse(model, CUBE, forward(model, CUBE), "salinet")


@pytest.mark.parametrize("p", [1, 2])
def test_a_row_of_zeros_stays_and_sends_back_nothing(p: int) -> None:
    x = np.array([[0.0, 0.0], [0.0, -2.0]])
    model = network([layer("LpNormalization", p=p)], x)
    np.testing.assert_array_equal(forward(model, x), [[0, 0], [0, -1]])
    np.testing.assert_array_equal(reverse(model, x, np.ones((2, 2)), "salinet"), [[0, 0], [0.5, 0]])


def test_mean_variance_normalization_of_a_flat_picture_by_hand() -> None:
    x = np.ones((1, 1, 1, 2))
    model = network([layer("MeanVarianceNormalization")], x)
    np.testing.assert_array_equal(forward(model, x), 0 * x)
    np.testing.assert_allclose(reverse(model, x, picture([3, 1]), "salinet"), picture([1e9, -1e9]))


EXTREMA = [
    ("ReduceMax", {"axes": [2, 3]}, [[0, 0, 0], [5, 0, 0]], [[0, 5, 0], [0, 0, 0]]),
    ("ReduceMax", {"axes": [-1, 1, 2], "keepdims": 0}, [[0, 0, 0], [5, 0, 0]], [[0, 5, 0], [0, 0, 0]]),
    ("ReduceMax", {"axes": [3]}, [[0, 5, 0], [6, 0, 0]], [[0, 5, 0], [0, 6, 0]]),
    ("ReduceMax", {"axes": [2], "keepdims": 0}, [[0, 0, 7], [5, 6, 0]], [[5, 6, 7], [0, 0, 0]]),
    ("ReduceMin", {"axes": [2, 3]}, [[0, 0, 5], [0, 0, 0]], [[0, 5, 0], [0, 0, 0]]),
    ("ReduceMin", {"axes": [2], "keepdims": 0}, [[5, 6, 7], [0, 0, 0]], [[5, 6, 7], [0, 0, 0]]),
]


@pytest.mark.parametrize(("op_type", "attributes", "first", "middle"), EXTREMA)
def test_extrema_along_axes_reverse_as_one_window_by_hand(
    op_type: str, attributes: dict[str, object], first: list[list[int]], middle: list[list[int]]
) -> None:
    x = picture([1, 2, 0], [3, 3, 0])
    model = network([layer(op_type, **attributes)], x)
    shape = forward(model, x).shape
    p = np.arange(5.0, 5 + math.prod(shape)).reshape(shape)
    for variant in VARIANTS:
        expected = middle if variant.endswith("-centre") else first
        np.testing.assert_array_equal(reverse(model, x, p, variant), [[expected]])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_maximum_over_the_plane_is_global_max_pooling(variant: str) -> None:
    x = np.round(CUBE.astype(np.float64))  # ties
    p = np.random.default_rng(8).standard_normal((2, 6, 1, 1))
    by = [
        reverse(network([node], x), x, p, variant)
        for node in (layer("ReduceMax", axes=[3, 2]), layer("GlobalMaxPool"))
    ]
    np.testing.assert_array_equal(*by)


def test_the_norm_of_nothing_sends_back_nothing() -> None:
    x = np.array([[0.0, 0.0], [3.0, 4.0]])
    model = network([layer("ReduceL2", axes=[1])], x)
    np.testing.assert_allclose(reverse(model, x, np.ones((2, 1)), "salinet"), [[0, 0], [0.6, 0.8]])


# ----- Quantisation -----

SCALES = floats(6) / 50
QUANTISED = [
    (10, {"s": 0.017, "z": np.uint8(120)}, {}),
    (13, {"s": 0.017, "z": np.int8(3)}, {}),
    (13, {"s": 0.01}, {}),
    (13, {"s": SCALES, "z": np.arange(6, dtype=np.int8)}, {}),
    (13, {"s": SCALES[:4], "z": np.arange(4, dtype=np.uint8)}, {"axis": -1}),
    (21, {"s": 1e-4, "z": np.int16(-5)}, {}),
    (21, {"s": floats(2, 3, 3, 4) / 50, "z": np.ones((2, 3, 3, 4), np.int8)}, {"axis": 1, "block_size": 2}),
    (25, {"s": 0.03, "z": np.int8(0)}, {}),
]


@pytest.mark.parametrize(("opset", "values", "attributes"), QUANTISED)
def test_quantisation_is_exact_and_passes_straight_through(
    opset: int, values: dict[str, object], attributes: dict[str, int]
) -> None:
    weights = {name: np.asarray(v, np.float32 if name == "s" else None) for name, v in values.items()}
    quantise = layer("QuantizeLinear", "x", *weights, output="q", **attributes)
    back = layer("DequantizeLinear", "q", *weights, **attributes)
    levels = network([quantise, layer("Identity", "q")], CUBE, weights, opset)
    np.testing.assert_array_equal(forward(levels, CUBE), by_onnxruntime(levels, CUBE))
    model = network([quantise, back], CUBE, weights, opset)
    # float32 rounding of one product
    np.testing.assert_allclose(forward(model, CUBE), by_onnxruntime(model, CUBE), rtol=1e-6)
    p = np.random.default_rng(0).standard_normal(CUBE.shape)
    np.testing.assert_array_equal(reverse(model, CUBE, p, "salinet"), p)


def test_quantisation_rounds_half_to_even() -> None:
    x = np.array([[0.5, 1.5, 2.5, -0.5, 300.0, -300.0]], np.float32)
    model = network([layer("QuantizeLinear", *"xs")], x, {"s": np.array(1, np.float32)})
    np.testing.assert_array_equal(forward(model, x), [[0, 2, 2, 0, 255, 0]])


# ----- Splits -----


def split(sizes: Sequence[int] | None, opset: int) -> onnx.ModelProto:
    """Three parts of the channels, of which two go on, each its own way."""
    given = {} if sizes is None else {"n": np.array(sizes)}
    how = {"num_outputs": 3} if opset >= 18 and sizes is None else {}
    if opset < 13 and sizes is not None:
        given, how = {}, {"split": sizes}
    node = helper.make_node("Split", ["x", *given], ["a", "b", "c"], axis=1, **how)
    nodes = [node, layer("Tanh", "c", output="d"), layer("Concat", "d", "a", "c", axis=1)]
    return network(nodes, CUBE, given, opset)


@pytest.mark.parametrize(
    ("sizes", "opset"), [(None, 7), ([1, 3, 2], 11), (None, 13), ([1, 3, 2], 17), (None, 18), ([4, 1, 1], 18)]
)
def test_each_output_of_a_split_sends_back_what_it_gets(sizes: Sequence[int] | None, opset: int) -> None:
    model = split(sizes, opset)
    # float32 rounding of tanh
    np.testing.assert_allclose(forward(model, CUBE), by_onnxruntime(model, CUBE), rtol=1e-5, atol=1e-6)
    assert_derivative(model, CUBE)


def test_a_split_may_be_uneven() -> None:
    nodes = [helper.make_node("Split", ["x"], ["a", "b", "y"], axis=-1, num_outputs=3)]
    x = np.arange(5, dtype=np.float32)
    model = network(nodes, x, opset=18)
    np.testing.assert_array_equal(forward(model, x), by_onnxruntime(model, x))
    np.testing.assert_array_equal(forward(model, x), [4])


# ----- Batches -----


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_is_its_images_and_rows_of_p_are_runs(variant: str) -> None:
    model, p = branching_network(IMAGES), np.random.default_rng(5).standard_normal((3, 5))
    whole, images = reverse(model, IMAGES, p, variant), [IMAGES[i : i + 1] for i in range(3)]
    alone = [reverse(model, image, row[None], variant) for image, row in zip(images, p, strict=True)]
    np.testing.assert_allclose(whole, np.concatenate(alone), rtol=1e-12, atol=1e-12)
    runs = [reverse(model, images[0], row[None], variant) for row in p]
    np.testing.assert_allclose(
        reverse(model, images[0], p, variant), np.concatenate(runs), rtol=1e-12, atol=1e-12
    )


# ----- Refusals -----

EMPTY = helper.make_graph([], "empty", [], [])
SAME = {"kernel_shape": [2], "auto_pad": "SAME_UPPER"}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (layer("Floor"), "^cannot reverse node 'Floor of y': the reference has no reversed layer for"),
        (layer("Det"), "^cannot run node 'Det of y': the reference has no rule for Det .rules exist for A"),
        (layer("Loop", "n", "", "x", body=EMPTY), "the reference has no rule for Loop"),
        (layer("Pow", "W", "x"), "input 1 of this Pow, 'x', is not constant"),
        (layer("Dropout", "x", "", "yes"), "it drops at random"),
        (layer("Conv", "W", "x"), "input 1 of this Conv, 'x', is not constant"),
        (layer("Cast", to=onnx.TensorProto.INT32), "it rounds to integers"),
        (layer("BatchNormalization", *"xWWWW", training_mode=1), "it normalises by the batch"),
        (layer("MaxPool", kernel_shape=[3], dilations=[2]), "its window is wider than the padded picture"),
        (layer("MaxPool", **SAME, dilations=[2]), "onnxruntime ignores dilations"),
        (layer("AveragePool", **SAME, dilations=[2]), "onnxruntime ignores dilations"),
        (layer("MaxPool", **(SAME | {"kernel_shape": [1]}), strides=[3]), "crops where strides outrun"),
        (layer("Identity", "W"), "cannot reverse from 'y': it does not depend on 'x'"),
        (layer("Identity", "z"), "no value for 'z'"),
    ],
)
def test_what_cannot_be_done_is_refused(node: onnx.NodeProto, message: str) -> None:
    x = np.ones((2, 2, 3))
    model = network([node], x, {"W": x, "n": np.array(2), "yes": np.array(True)}, opset=19)
    with pytest.raises(RevgraphError, match=message):
        reverse(model, x, forward(model, x), "salinet")


@pytest.mark.parametrize(
    ("rows", "variant", "lrn", "message"),
    [
        (3, "salinet", None, r"p is \(3, 4\) and 'y' is \(2, 4\)"),
        (2, "salient", None, "choose from identity, deconvnet"),
        (2, "salinet", "gradient", "choose from identity, bp"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    rows: int, variant: str, lrn: str | None, message: str
) -> None:
    x = np.ones((2, 4))
    with pytest.raises(RevgraphError, match=message):
        reverse(network([layer("Relu")], x), x, np.ones((rows, 4)), variant, lrn)
