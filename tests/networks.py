"""Small networks for the tests, written as ONNX by hand, with seeded weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import onnxruntime
from onnx import helper, numpy_helper


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """A node named like its output; `inputs` are separated by blanks."""
    return helper.make_node(op, inputs.split(" "), [output], name=output, **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    x: Sequence[int | str | None],
    weights: Mapping[str, np.ndarray] | None = None,
    outputs: Sequence[str] | None = None,
    opset: int = 17,
    ir_version: int = 8,
) -> onnx.ModelProto:
    """A network with one float input `x`; by default its output is that of the last node."""
    names = outputs or [nodes[-1].output[0]]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x)],
        [onnx.ValueInfoProto(name=name) for name in names],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    # onnx.checker wants a type and a shape for each output.
    inferred = onnx.shape_inference.infer_shapes(net).graph.output
    for output, found in zip(net.graph.output, inferred, strict=True):
        output.CopyFrom(found)
    return net


def cnn(batch: int | str | None = "N", softmax: bool = True, **options: int) -> onnx.ModelProto:
    """A small classifier of pictures: conv1 relu1 pool1 conv2 relu2 gap flat logits, and prob (N, 5) last."""
    rng = np.random.default_rng(0)
    weights = {"w1": he(rng, 10, 3, 3, 3), "w2": he(rng, 12, 10, 3, 3), "w3": he(rng, 5, 12)}
    biases = {"b1": np.full(10, 0.05, np.float32), "b3": np.zeros(5, np.float32)}
    nodes = [
        node("Conv", "x w1 b1", "conv1", pads=[1] * 4),
        node("Relu", "conv1", "relu1"),
        node("MaxPool", "relu1", "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "pool1 w2", "conv2"),
        node("Relu", "conv2", "relu2"),
        node("GlobalAveragePool", "relu2", "gap"),
        node("Flatten", "gap", "flat"),
        node("Gemm", "flat w3 b3", "logits", transB=1),
        node("Softmax", "logits", "prob", axis=1),
    ]
    return model(nodes if softmax else nodes[:-1], [batch, 3, 8, 8], weights | biases, **options)


def overflowing(first: float, second: float, third: float) -> onnx.ModelProto:
    """Three products by channel, conv1 conv2 y: x (N, 3, 8, 8) by the first, then the second, then a sum."""
    eye = np.eye(3, dtype=np.float32)[..., None, None]
    tensors = {"w1": eye * first, "w2": eye * second, "w3": np.full((3, 3, 1, 1), third, np.float32)}
    nodes = [node("Conv", "x w1", "conv1"), node("Conv", "conv1 w2", "conv2"), node("Conv", "conv2 w3", "y")]
    return model(nodes, ["N", 3, 8, 8], {n: w.astype(np.float32) for n, w in tensors.items()})


def alexnet_like(normalised: bool = True) -> onnx.ModelProto:
    """Pools, LRN if wanted, a fully connected head; pictures of 48 x 48, ten classes."""
    rng = np.random.default_rng(0)
    tensors = {
        "w1": he(rng, 8, 3, 5, 5),
        "w2": he(rng, 12, 8, 3, 3),
        "w3": he(rng, 12, 12, 3, 3),
        "w4": he(rng, 10, 12 * 5 * 5),
        "b": np.full(8, 0.01, np.float32),
    }
    nodes = [
        node("Conv", "x w1 b", "conv1", strides=[2, 2]),
        node("Relu", "conv1", "relu1"),
        node("LRN" if normalised else "Identity", "relu1", "norm1", **({"size": 3} if normalised else {})),
        node("MaxPool", "norm1", "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "pool1 w2", "conv2", pads=[1] * 4),
        node("Relu", "conv2", "relu2"),
        node("Conv", "relu2 w3", "conv3", pads=[1] * 4),
        node("Relu", "conv3", "relu3"),
        node("MaxPool", "relu3", "pool3", kernel_shape=[3, 3], strides=[2, 2]),
        node("Flatten", "pool3", "flat"),
        node("Gemm", "flat w4", "logits", transB=1),
        node("Softmax", "logits", "prob", axis=1),
    ]
    return model(nodes, ["N", 3, 48, 48], tensors)


def he(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """float32 weights that keep a signal's size through a ReLU."""
    return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    """A float32 array to feed."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run(net: onnx.ModelProto, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    """Every output by name, as onnxruntime computes it."""
    session = onnxruntime.InferenceSession(net.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))
