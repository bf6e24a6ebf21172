"""For the tests of the reference: networks of one operator and more, and what judges them."""

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from revgraph import reference

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
    if (opset := model.opset_import[0].version) > onnx.defs.onnx_opset_version():
        pytest.skip(f"the installed onnx, and onnxruntime of its time, have no opset {opset}")
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

RANKED = [(rank, seed) for rank in (1, 2, 3) for seed in range(40)]

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


def assert_derivative(model: onnx.ModelProto, x: np.ndarray) -> None:
    """SaliNet with LRN by BP is the derivative of <p, phi(x)>, here by central differences along v."""
    rng, x, step = np.random.default_rng(1), x.astype(np.float64), 1e-6
    p, v = rng.standard_normal(forward(model, x).shape), rng.standard_normal(x.shape)
    slope = (p * (forward(model, x + step * v) - forward(model, x - step * v))).sum() / (2 * step)
    x_hat = reverse(model, x, p, "salinet", lrn="bp")
    assert x_hat.shape == x.shape
    np.testing.assert_allclose((x_hat * v).sum(), slope, rtol=1e-6)


def nodes_of(*lines: str) -> list[onnx.NodeProto]:
    """Nodes from lines such as "y = Concat a b axis=1"."""
    return [_node_of(*line.split(" = ")) for line in lines]


def _node_of(output: str, call: str) -> onnx.NodeProto:
    op_type, *words = call.split()
    attributes = dict(word.split("=") for word in words if "=" in word)
    inputs = [word for word in words if "=" not in word]
    values = {name: ast.literal_eval(value) for name, value in attributes.items()}
    return helper.make_node(op_type, inputs, output.split(), **values)


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
