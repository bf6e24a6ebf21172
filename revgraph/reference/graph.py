"""The nodes that run on some tensors, and what lies between two of them: where patterns are looked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from revgraph.reference.layer import Array, dependent, read, values_read
from revgraph.reference.table import operator


def run(model: onnx.ModelProto, node: onnx.NodeProto, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of a node, by name."""
    layer = read(model, node, tensors)
    y = operator(layer).forward(layer, *layer.inputs)
    outputs = y if isinstance(y, tuple) else (y,)
    return {name: np.asarray(y) for name, y in zip(node.output, outputs, strict=False)}


@dataclass(frozen=True)
class Graph:
    """A model's nodes in order, of which some may be written out.

    Attributes:
        model: The user's model.
        nodes: Its nodes, with those of branches that are taken.
        tensors: What a run of them gave; empty where there was none.
    """

    model: onnx.ModelProto
    nodes: Sequence[onnx.NodeProto]
    tensors: Mapping[str, Array]

    @cached_property
    def makers(self) -> dict[str, onnx.NodeProto]:
        """The node that makes each tensor."""
        return {name: node for node in self.nodes for name in node.output}

    @cached_property
    def readers(self) -> dict[str, set[str]]:
        """The first outputs of the nodes that read each tensor's values."""
        readers: dict[str, set[str]] = {}
        for node in self.nodes:
            for name in values_read(node):
                readers.setdefault(name, set()).add(node.output[0])
        return readers

    @cached_property
    def stored(self) -> set[str]:
        return {tensor.name for tensor in self.model.graph.initializer}

    def above(self, y: str, x: str) -> set[str]:
        """The tensors, y among them, whose values y is computed from once x is known."""
        found, waiting = set[str](), [y]
        while waiting:
            name = waiting.pop()
            if name and name != x and name not in found:
                found.add(name)
                waiting.extend(values_read(self.makers[name]) if name in self.makers else ())
        return found

    def between(self, x: str, y: str) -> set[str]:
        """The tensors, y among them, that x flows through to y."""
        return self.above(y, x) & dependent(self.nodes, x)
