"""Activations as exporters write them, out of several elementwise nodes.

Spellings differ between exporters and their versions, functions do not: a group of nodes is recognised by
what it computes. While rules are applied one node stands for it; the forward graph gets the group back.
"""

import math
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.reference

from revgraph.graph import activations, gs, producer

# fmt: off
ELEMENTWISE = frozenset({
    "Add", "Clip", "Div", "Erf", "Exp", "HardSigmoid", "Log", "Max", "Min", "Mul", "Neg", "Pow",
    "Reciprocal", "Relu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh",
})
# fmt: on
CLIPS = ("Clip", "Max", "Min", "Relu")
MAX_NODES = 12
GRID = np.concatenate([np.linspace(-8, 8, 641), [-30, 30]])
TOLERANCE = 2e-5
"""Constants are written in float32 or to six digits; the closest functions, the two Gelus, differ by 5e-4."""


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def _erf(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(value) for value in x])


FUNCTIONS: Mapping[str, tuple[str, dict[str, Any], Callable[[np.ndarray], np.ndarray]]] = {
    "SiLU": ("Silu", {}, lambda x: x * _sigmoid(x)),
    "HardSwish": ("HardSwish", {}, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "Mish": ("Mish", {}, lambda x: x * np.tanh(np.logaddexp(0, x))),
    "Gelu": ("Gelu", {}, lambda x: x * 0.5 * (1 + _erf(x / np.sqrt(2)))),
    "tanh Gelu": (
        "Gelu",
        {"approximate": "tanh"},
        lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    ),
    "Softplus": ("Softplus", {}, lambda x: np.logaddexp(0, x)),
}


Known = tuple[str, dict[str, Any], list[gs.Constant]]
"""An operator, its attributes, and its inputs after the first."""


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes set aside, and the one that stands for them.

    Attributes:
        stand_in: In the graph now.
        nodes: In topological order, with their inputs and outputs.
    """

    stand_in: gs.Node
    nodes: tuple[tuple[gs.Node, tuple[Any, ...], tuple[Any, ...]], ...]


@contextmanager
def grouped(graph: gs.Graph, y: gs.Variable) -> Iterator[None]:
    """Within this context, activations written as groups are single nodes.

    Args:
        graph: Changed in place, and back.
        y: The layer asked for, which stays a tensor, as the graph's outputs do.
    """
    keep = {y.name, *(output.name for output in graph.outputs)}
    groups = [group for node in reversed(list(graph.nodes)) if (group := _recognise(graph, node, keep))]
    graph.toposort()
    yield
    for group in groups:
        _restore(graph, group)
    graph.toposort()


def _recognise(graph: gs.Graph, end: gs.Node, keep: Container[str]) -> Group | None:
    """Grow a group back from `end`; the largest that is a known function of one tensor stands."""
    if end.op not in ELEMENTWISE or not end.outputs or not _of_numbers(end):
        return None
    found, nodes, joining = None, list[gs.Node](), [end]
    while joining and len(nodes) < MAX_NODES:
        nodes.append(joining[0])
        sources = _sources(nodes)
        alone = len(nodes) == 1 and end.op not in ("Max", "Min")
        if len(sources) == 1 and not alone and (known := _identify(nodes, sources[0])):
            found = list(nodes), sources[0], known
        joining = [node for tensor in sources if (node := _absorbable(tensor, nodes, keep))]
    if found is None:
        return None
    members, x, (operator, attributes, bounds) = found
    return _set_aside(graph, members, gs.Node(operator, end.name, attributes, [x, *bounds]))


def _sources(nodes: list[gs.Node]) -> list[gs.Variable]:
    """What the group reads and does not write, each once."""
    written = {id(node.outputs[0]) for node in nodes}
    read = {id(tensor): tensor for node in nodes for tensor in activations(node)}
    return [tensor for key, tensor in read.items() if key not in written]


def _absorbable(tensor: gs.Variable, nodes: list[gs.Node], keep: Container[str]) -> gs.Node | None:
    """The tensor's producer, if it may join: elementwise by numbers, and read by the group alone."""
    node = producer(tensor)
    if node is None or node.op not in ELEMENTWISE or len(node.outputs) != 1 or tensor.name in keep:
        return None
    members = {id(member) for member in nodes}
    return node if _of_numbers(node) and all(id(reader) in members for reader in tensor.outputs) else None


def _of_numbers(node: gs.Node) -> bool:
    """Whether the node's constants are single numbers."""
    return all(t.is_empty() or isinstance(t, gs.Variable) or t.values.size == 1 for t in node.inputs)


def _identify(nodes: list[gs.Node], x: gs.Variable) -> Known | None:
    y = _evaluate(nodes, x)
    if y is None:
        return None
    for operator, attributes, function in FUNCTIONS.values():
        if np.allclose(y, function(GRID), rtol=TOLERANCE, atol=TOLERANCE):
            return operator, dict(attributes), []
    # x - relu(x) is a clipped x as well, but nobody means it so.
    return _identify_clip(y, x, nodes[0].name) if all(node.op in CLIPS for node in nodes) else None


def _identify_clip(y: np.ndarray, x: gs.Variable, name: str) -> Known | None:
    low, high = y.min(), y.max()
    if low >= high or not np.allclose(y, np.clip(GRID, low, high), rtol=0, atol=1e-6):
        return None
    if low == 0 and high == GRID.max():
        return "Relu", {}, []
    # A bound at the end of the grid is none.
    bounds = {"low": low if low > GRID.min() else -np.inf, "high": high if high < GRID.max() else np.inf}
    if not np.isfinite(list(bounds.values())).any():
        return None
    constants = [gs.Constant(f"{name}/bound/{k}", np.array(n, x.dtype)) for k, n in bounds.items()]
    return "Clip", {}, constants


def _evaluate(nodes: list[gs.Node], x: gs.Variable) -> np.ndarray | None:
    """The group's values on the grid, in float64."""
    exporter = gs.exporters.onnx_exporter.OnnxExporter
    protos = [exporter.export_node(node) for node in reversed(_ordered(nodes))]
    constants = {t.name: t.values for node in nodes for t in node.inputs if isinstance(t, gs.Constant)}
    numbers = {name: values.reshape(()).astype(np.float64) for name, values in constants.items()}
    weights = [onnx.numpy_helper.from_array(number, name) for name, number in numbers.items()]
    value, double = onnx.helper.make_tensor_value_info, onnx.TensorProto.DOUBLE
    end = nodes[0].outputs[0].name
    graph = onnx.helper.make_graph(
        protos, "g", [value(x.name, double, None)], [value(end, double, None)], weights
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    try:
        with np.errstate(all="ignore"):
            (y,) = onnx.reference.ReferenceEvaluator(model).run(None, {x.name: GRID})
    except Exception:  # whatever the evaluator makes of an odd group: it is none that we know
        return None
    return np.asarray(y) if np.shape(y) == GRID.shape and np.isfinite(y).all() else None


def _ordered(nodes: list[gs.Node]) -> list[gs.Node]:
    """Reverse topological order."""
    ordered, waiting = list[gs.Node](), list(nodes)
    while waiting:
        written = {id(t) for node in waiting for t in node.inputs}
        ready = next(node for node in waiting if id(node.outputs[0]) not in written)
        ordered.append(ready)
        waiting = [node for node in waiting if node is not ready]
    return ordered


def _set_aside(graph: gs.Graph, nodes: list[gs.Node], stand_in: gs.Node) -> Group:
    group = Group(stand_in, tuple((node, tuple(node.inputs), tuple(node.outputs)) for node in nodes))
    output = nodes[0].outputs[0]
    for node in nodes:
        node.inputs.clear()
        node.outputs.clear()
    members = {id(node) for node in nodes}
    graph.nodes = [node for node in graph.nodes if id(node) not in members]
    stand_in.outputs.append(output)
    graph.nodes.append(stand_in)
    return group


def _restore(graph: gs.Graph, group: Group) -> None:
    group.stand_in.inputs.clear()
    group.stand_in.outputs.clear()
    graph.nodes = [node for node in graph.nodes if node is not group.stand_in]
    for node, inputs, outputs in group.nodes:
        node.inputs.extend(inputs)
        node.outputs.extend(outputs)
        graph.nodes.append(node)
