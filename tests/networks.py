"""Small networks for the tests, written as ONNX by hand, with seeded weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """A node named like its output; `inputs` are separated by blanks."""
    return helper.make_node(op, inputs.split(" "), [output], name=output, **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    x: Sequence[int | str],
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
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def he(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """float32 weights that keep a signal's size through a ReLU."""
    return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
