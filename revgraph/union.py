"""Several compilations of one network as one model: one forward pass, an x_hat for each."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from revgraph import choice, pair, weights
from revgraph.errors import RevgraphError
from revgraph.pair import Compiled
from revgraph.weights import LightModel, Weights

SAME = ("source_sha256", "at", "input", "precision")
"""What compilations must agree on."""


def union(compilations: Sequence[Compiled]) -> LightModel:
    """The model's inputs and `class` -> its outputs, y, and `<variant>/x_hat` of each.

    What several have in common is in it once: the forward graph, weights, taps. `class` is a channel of y for
    each image; where it is empty, shape (0,), p is the strongest neuron of each.

    Raises:
        RevgraphError: They do not belong together, or leave no room for `class`.
    """
    first, *others = (compiled.fused_from_p() for compiled in compilations)
    for compiled, other in zip(compilations[1:], others, strict=True):
        _check(compilations[0], first.model, compiled, other.model)
    model = onnx.ModelProto()
    model.CopyFrom(first.model)
    model.ClearField("graph")
    model.graph.name = first.model.graph.name
    model.graph.input.extend(first.model.graph.input)
    grown = _Union(model.graph)
    for compiled, part in zip(compilations, (first, *others), strict=True):
        grown.add(part, compiled.variant)
    fused, _ = choice.give_way(LightModel(model, grown.weights))
    x_hats = [f"{compiled.variant}/x_hat" for compiled in compilations]
    fused = choice.inside(fused, compilations[0].at, choice.EITHER, x_hats)
    pair.set_metadata(fused.model, {"variant": " ".join(c.variant for c in compilations)})
    return fused


def _check(first: Compiled, model: onnx.ModelProto, other: Compiled, another: onnx.ModelProto) -> None:
    differ = [key for key in SAME if first.metadata.get(key) != other.metadata.get(key)]
    if list(model.opset_import) != list(another.opset_import):
        differ.append("opset")
    if differ:
        what = f"cannot join {first.name}.{first.variant} and {other.name}.{other.variant}"
        raise RevgraphError(what, f"they differ in {', '.join(differ)}", "compile both in one way")


class _Union:
    """A graph that grows by others, each node and each weight that is there already left out."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.weights: Weights = {}
        self._made: dict[str, bytes] = {value.name: b"" for value in graph.input}
        """What each tensor comes from."""
        self._nodes: set[str] = set()

    def add(self, part: LightModel, variant: str) -> None:
        """All of a fused graph; what is called like something else is called `<variant>/...`."""
        new = {"x_hat": f"{variant}/x_hat"}
        for tensor in part.model.graph.initializer:
            self._store(tensor, part.weights.get(tensor.name), new, variant)
        for node in part.model.graph.node:
            self._append(node, new, variant)
        known = {value.name for value in (*self.graph.output, *self.graph.value_info)}
        for values, mine in (
            (part.model.graph.output, self.graph.output),
            (part.model.graph.value_info, self.graph.value_info),
        ):
            for value in values:
                if new.get(value.name, value.name) not in known:
                    mine.add().CopyFrom(value)
                    mine[-1].name = new.get(value.name, value.name)

    def _store(
        self, tensor: onnx.TensorProto, array: np.ndarray | None, new: dict[str, str], variant: str
    ) -> None:
        content = tensor.SerializeToString(deterministic=True)
        if array is not None:
            content += weights.sha256(array).encode()
        name = self._name(tensor.name, content, new, variant)
        if name is not None:
            self.graph.initializer.add().CopyFrom(tensor)
            self.graph.initializer[-1].name = name
            if array is not None:
                self.weights[name] = array

    def _append(self, node: onnx.NodeProto, new: dict[str, str], variant: str) -> None:
        renamed = onnx.NodeProto()
        renamed.CopyFrom(node)
        _rename([renamed], new)
        content = renamed.SerializeToString(deterministic=True)
        # One known output means that all are: they come from the same node.
        names = [self._name(name, content, new, variant) for name in node.output if name]
        if any(names):
            renamed.output[:] = [new.get(name, name) for name in node.output]
            if node.name in self._nodes:
                renamed.name = f"{variant}/{node.name}"
            self._nodes.add(renamed.name)
            self.graph.node.append(renamed)

    def _name(self, name: str, content: bytes, new: dict[str, str], variant: str) -> str | None:
        """What a tensor of that origin shall be called; None if it is there."""
        if name not in new and self._made.get(name, content) != content:
            new[name] = f"{variant}/{name}"
        name = new.get(name, name)
        known = name in self._made
        self._made[name] = content
        return None if known else name


def _rename(nodes: Sequence[onnx.NodeProto], new: Mapping[str, str]) -> None:
    """What nodes read; branches of If and bodies of loops see the names around them."""
    for node in nodes:
        node.input[:] = [new.get(name, name) for name in node.input]
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                _rename(graph.node, new)
                for value in graph.output:
                    value.name = new.get(value.name, value.name)
