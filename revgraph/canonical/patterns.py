"""Layers as exporters write them, out of several nodes: activations, and local response normalisation.

While rules are applied one node stands for such a group; the forward graph gets the group back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from revgraph.canonical import activations, lrn
from revgraph.canonical.recognition import Nodes
from revgraph.graph import gs, sort

RECOGNISERS = (lrn.recognise, activations.recognise)


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes set aside, and those that stand for them.

    Attributes:
        stand_ins: In the graph now.
        nodes: With their inputs and outputs.
    """

    stand_ins: tuple[gs.Node, ...]
    nodes: tuple[tuple[gs.Node, tuple[Any, ...], tuple[Any, ...]], ...]


@contextmanager
def grouped(graph: gs.Graph, y: gs.Variable) -> Iterator[list[Group]]:
    """Within this context, layers written as groups are single nodes.

    Args:
        graph: Changed in place, and back.
        y: The layer asked for, which stays a tensor, as the graph's outputs do.

    Yields:
        The groups.
    """
    keep = {y.name, *(output.name for output in graph.outputs)}
    groups = list[Group]()
    for node in reversed(list(graph.nodes)):
        found = next((f for recognise in RECOGNISERS if (f := recognise(node, keep))), None)
        if found:
            groups.append(_set_aside(graph, *found))
    sort(graph)
    yield groups
    for group in groups:
        _restore(graph, group)
    sort(graph)


def _set_aside(graph: gs.Graph, nodes: Nodes, stand_ins: Nodes) -> Group:
    group = Group(tuple(stand_ins), tuple((node, tuple(node.inputs), tuple(node.outputs)) for node in nodes))
    output = nodes[0].outputs[0]
    for node in nodes:
        node.inputs.clear()
        node.outputs.clear()
    members = {id(node) for node in nodes}
    graph.nodes = [node for node in graph.nodes if id(node) not in members]
    stand_ins[-1].outputs.append(output)
    graph.nodes.extend(stand_ins)
    return group


def _restore(graph: gs.Graph, group: Group) -> None:
    group.stand_ins[-1].outputs.clear()
    for stand_in in reversed(group.stand_ins):
        if not any(tensor.outputs for tensor in stand_in.outputs):  # else a tap reads it
            stand_in.inputs.clear()
            stand_in.outputs.clear()
            graph.nodes = [node for node in graph.nodes if node is not stand_in]
    for node, inputs, outputs in group.nodes:
        node.inputs.extend(inputs)
        node.outputs.extend(outputs)
        graph.nodes.append(node)
