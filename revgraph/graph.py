"""Graphs in memory: onnx-graphsurgeon, made quiet, and the one way that nodes are added to its graphs."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import DTypeLike

with contextlib.redirect_stdout(io.StringIO()):  # it logs to stdout, where results belong
    import onnx_graphsurgeon as gs
    from onnx_graphsurgeon.ir.tensor import LazyValues
    from onnx_graphsurgeon.logger import G_LOGGER

from revgraph import weights
from revgraph.errors import invalid_model
from revgraph.names import next_free
from revgraph.weights import LightModel, Weights

G_LOGGER.severity = G_LOGGER.CRITICAL + 1

__all__ = [
    "DOMAIN",
    "Builder",
    "Shape",
    "Tensor",
    "attach",
    "computed_inputs",
    "export",
    "gs",
    "inner_tensors",
    "producer",
    "replace",
    "sort",
    "static",
    "tensor_names",
    "tidy",
]

DOMAIN = "revgraph"
"""Domain of the middle form's own operators; none of them survives lowering."""

Tensor: TypeAlias = gs.Variable | gs.Constant
Shape = Sequence[int | str | None]


class Builder:
    """Appends nodes to one graph.

    Attributes:
        graph: The onnx-graphsurgeon graph that grows.
        names: Every name taken in either graph of a pair, so that the two can be fused into one file.
        scope: The layer being written; new nodes and their outputs are called `<scope>/<operator>`.
    """

    def __init__(self, graph: gs.Graph, names: set[str]) -> None:
        self.graph = graph
        self.names = names
        self.scope = ""
        self._tried = dict[str, int]()
        self._constants = {t.name: t for t in graph.tensors().values() if isinstance(t, gs.Constant)}

    def fresh(self, stem: str) -> str:
        """A name that neither graph has: `stem`, or `stem_1`, `stem_2`, ..."""
        name = next_free(stem, self.names, self._tried)
        self.names.add(name)
        return name

    def emit(
        self,
        op: str,
        *inputs: Tensor | np.ndarray,
        dtype: DTypeLike,
        shape: Shape | None,
        name: str | None = None,
        domain: str | None = None,
        **attributes: Any,
    ) -> gs.Variable:
        """Append one node with one output.

        Args:
            op: Operator type.
            *inputs: Tensors of this graph, constants of any graph, or arrays.
            dtype: Element type of the output.
            shape: Shape of the output; None where only the run tells.
            name: Exact name of the output and the node; else one is made from the scope.
            domain: None for ONNX's own.
            **attributes: The node's attributes.

        Returns:
            The output.
        """
        name = name or self.fresh(f"{self.scope}/{op.lower()}")
        # Made by hand: Graph.layer(outputs=["c/mask"]) would call it c/mask_0.
        output = gs.Variable(name, np.dtype(dtype), None if shape is None else list(shape))
        tensors = [self._own(tensor) for tensor in inputs]
        self.graph.nodes.append(gs.Node(op, name, attributes, tensors, [output], domain))
        return output

    def cast(self, tensor: Tensor, dtype: DTypeLike, name: str | None = None) -> gs.Variable:
        """The tensor in another element type; `name` as for `emit`."""
        kind = np.dtype(dtype)
        return self.emit("Cast", tensor, dtype=kind, shape=tensor.shape, name=name, to=kind.type)

    def reduce(self, op: str, x: Tensor, axes: Sequence[int], **attributes: Any) -> gs.Variable:
        """A maximum, a mean or the like over axes, each of which is then 1; opset 18 made them an input."""
        shape = [1 if i in axes else n for i, n in enumerate(x.shape)]
        if self.graph.opset < 18:
            return self.emit(op, x, dtype=x.dtype, shape=shape, axes=list(axes), **attributes)
        return self.emit(op, x, np.array(axes), dtype=x.dtype, shape=shape, **attributes)

    def _own(self, tensor: Tensor | np.ndarray) -> Tensor:
        if isinstance(tensor, np.ndarray):
            return self._array(tensor)
        if isinstance(tensor, gs.Constant):
            return self._constants.setdefault(tensor.name, gs.Constant(tensor.name, tensor.values))
        return tensor

    def _array(self, values: np.ndarray) -> gs.Constant:
        """A constant named after what it holds, so that equal arrays are stored once."""
        if values.size == 1:
            stem = f"constant/{values.dtype}/{'x'.join(map(str, values.shape))}/{values.item()!r}"
        elif values.dtype == np.int64 and values.size <= 8:
            stem = f"constant/{values.dtype}/{'x'.join(map(str, values.shape))}/{values.ravel().tolist()}"
        else:
            stem = self.fresh(f"{self.scope}/constant")
        return self._constants.setdefault(stem, gs.Constant(stem, values))


def attach(graph: gs.Graph, held: Weights) -> None:
    """Turn the inputs of `LightModel.as_inputs` back into the constants that they stand for."""
    graph.inputs = [tensor for tensor in graph.inputs if tensor.name not in held]
    for tensor in (*graph.tensors().values(), *inner_tensors(graph)):
        if tensor.name in held and isinstance(tensor, gs.Variable):
            tensor.to_constant(held[tensor.name])


def inner_tensors(graph: gs.Graph) -> Iterator[Tensor]:
    """What the branches of an If and the bodies of loops read and write, the graph's own tensors among it."""
    for inner in graph.subgraphs(recursive=True):
        yield from inner.tensors().values()


def export(graph: gs.Graph) -> LightModel:
    """The graph as a model; the values of its large constants go there, and are not the graph's any more."""
    held: Weights = {}
    inner = {tensor.name for tensor in inner_tensors(graph)}  # which onnx-graphsurgeon stores inside too
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Constant) and tensor.name not in inner and weights.is_large(tensor.values):
            values = held[tensor.name] = np.asarray(tensor.values, order="C")
            kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
            # onnx-graphsurgeon exports these as they are, and would copy an array several times.
            tensor.values = LazyValues(weights.stub(tensor.name, kind, values.shape))
    return weights.of(gs.export_onnx(graph), held)


def computed_inputs(node: gs.Node) -> list[gs.Variable]:
    """The inputs that the run computes, in order: neither weights nor absent."""
    return [tensor for tensor in node.inputs if isinstance(tensor, gs.Variable) and not tensor.is_empty()]


def producer(tensor: Tensor) -> gs.Node | None:
    """The node that writes the tensor; None for inputs of the graph and constants."""
    return tensor.inputs[0] if tensor.inputs else None


def replace(node: gs.Node, tensor: gs.Variable) -> None:
    """Let the producer of `tensor` write the node's first output in its stead; the node is then unused."""
    output = node.outputs[0]
    node.outputs.clear()
    writer = tensor.inputs[0]
    writer.outputs[[t is tensor for t in writer.outputs].index(True)] = output
    output.dtype, output.shape = tensor.dtype, tensor.shape


def tidy(graph: gs.Graph) -> gs.Graph:
    """Drop the nodes that no output needs, and sort the others.

    As onnx-graphsurgeon's cleanup and toposort do, the first of which compares each input with all tensors.
    """
    for inner in graph.subgraphs():
        tidy(inner)
    for x in graph.inputs:
        x.inputs.clear()
    needed, waiting = set[int](), [node for output in graph.outputs for node in output.inputs]
    while waiting:
        node = waiting.pop()
        if id(node) not in needed:
            needed.add(id(node))
            waiting += _read_from(node)
    for node in graph.nodes:
        if id(node) not in needed:
            node.inputs.clear()
            node.outputs.clear()
    graph.nodes = [node for node in graph.nodes if id(node) in needed]
    return sort(graph)


def sort(graph: gs.Graph) -> gs.Graph:
    """Sort the nodes in place by how many layers lie before them, those of subgraphs too.

    As onnx-graphsurgeon does, which recurses, and gives up at a few hundred layers out of order.
    """
    for inner in graph.subgraphs():
        sort(inner)
    nodes = {id(node): node for node in graph.nodes}
    levels, begun = dict[int, int](), set[int]()
    for node in graph.nodes:
        waiting = [node]
        while waiting:
            last = waiting[-1]
            before = [each for each in _read_from(last) if id(each) in nodes]
            if missing := [each for each in before if id(each) not in levels]:
                if id(last) in begun:
                    raise invalid_model("its nodes form a cycle")
                begun.add(id(last))
                waiting += reversed(missing)
            elif id(waiting.pop()) not in levels:
                levels[id(last)] = max((levels[id(each)] + 1 for each in before), default=0)
    graph.nodes = sorted((nodes[key] for key in levels), key=lambda node: levels[id(node)])
    return graph


def _read_from(node: gs.Node) -> Iterator[gs.Node]:
    """The nodes that a node, or a subgraph of it, reads from."""
    for tensor in node.inputs:
        yield from tensor.inputs
    for inner in node.subgraphs():
        for tensor in inner._foreign_tensors().values():
            yield from tensor.inputs


def static(dims: Shape | None) -> bool:
    """Whether every dimension is known at compile time."""
    return dims is not None and all(isinstance(dim, int) for dim in dims)


def tensor_names(model: onnx.ModelProto) -> Iterator[str]:
    """Every tensor name of the model's main graph."""
    graph = model.graph
    yield from (value.name for value in (*graph.input, *graph.output))
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from filter(None, (*node.input, *node.output))
