"""What recognisers share: which nodes may join a group, what a group reads, and what it computes."""

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.reference
from onnx.reference.op_run import OpRun

from revgraph.canonical.on_model import OPSETS
from revgraph.graph import computed_inputs, gs, producer

Nodes = Sequence[gs.Node]
"""The last node first."""
Found = tuple[Nodes, Nodes]
"""The group, and the nodes that stand for it in order; the last of these writes the group's output."""


def sources(nodes: Nodes) -> list[gs.Variable]:
    """What the group reads and does not write, each once."""
    written = {id(tensor) for node in nodes for tensor in node.outputs}
    read = {id(tensor): tensor for node in nodes for tensor in computed_inputs(node)}
    return [tensor for key, tensor in read.items() if key not in written]


def absorbable(
    tensor: gs.Variable, nodes: Nodes, keep: Container[str], operators: Container[str]
) -> gs.Node | None:
    """The tensor's producer, if it may join: of one output, which the group alone reads."""
    node = producer(tensor)
    if node is None or node.op not in operators or len(node.outputs) != 1 or tensor.name in keep:
        return None
    members = {id(member) for member in nodes}
    return node if all(id(reader) in members for reader in tensor.outputs) else None


def evaluate(nodes: Nodes, feeds: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The group's output in float64; None where it cannot be told."""
    exporter = gs.exporters.onnx_exporter.OnnxExporter
    protos = [exporter.export_node(node) for node in reversed(ordered(nodes))]
    constants = {t.name: t.values for node in nodes for t in node.inputs if isinstance(t, gs.Constant)}
    weights = [onnx.numpy_helper.from_array(_widened(values), name) for name, values in constants.items()]
    value, double = onnx.helper.make_tensor_value_info, onnx.TensorProto.DOUBLE
    inputs, end = [value(name, double, None) for name in feeds], nodes[0].outputs[0].name
    graph = onnx.helper.make_graph(protos, "g", inputs, [value(end, double, None)], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSETS[1])])
    try:
        with np.errstate(all="ignore"):
            (y,) = onnx.reference.ReferenceEvaluator(model, new_ops=[AveragePool]).run(None, dict(feeds))
    except Exception:  # whatever the evaluator makes of an odd group: it is none that we know
        return None
    return np.asarray(y) if np.isfinite(y).all() else None


class AveragePool(OpRun):
    """Windows side by side, as LRN is written with: onnx's own takes 17 us an element."""

    op_domain = ""

    def _run(self, x: np.ndarray, kernel_shape: Sequence[int] = (), **attributes: Any) -> tuple[np.ndarray]:
        rank = len(kernel_shape)
        plain = {"auto_pad": "NOTSET", "ceil_mode": 0, "dilations": [1] * rank, "strides": [1] * rank}
        if any(attributes.get(name) not in (None, usual) for name, usual in plain.items()):
            raise NotImplementedError
        pads = attributes.get("pads") or [0] * 2 * rank
        widths = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
        counted = attributes.get("count_include_pad") or 0
        ones = np.pad(np.ones_like(x), widths, constant_values=counted)
        return (_sums(np.pad(x, widths), kernel_shape) / _sums(ones, kernel_shape),)


def _sums(x: np.ndarray, kernel: Sequence[int]) -> np.ndarray:
    """Over windows of the last axes."""
    for axis, k in enumerate(kernel, 2):
        if k > 1:
            x = np.lib.stride_tricks.sliding_window_view(x, k, axis).sum(-1)
    return x


def _widened(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64) if np.issubdtype(values.dtype, np.floating) else values


def ordered(nodes: Nodes) -> list[gs.Node]:
    """Reverse topological order."""
    result, waiting = list[gs.Node](), list(nodes)
    while waiting:
        read = {id(t) for node in waiting for t in node.inputs}
        ready = next(node for node in waiting if not any(id(t) in read for t in node.outputs))
        result.append(ready)
        waiting = [node for node in waiting if node is not ready]
    return result


def constants(node: gs.Node) -> list[Any]:
    """The values of the node's constant inputs."""
    return [tensor.values for tensor in node.inputs if isinstance(tensor, gs.Constant)]
