"""What in a graph hangs on what: the ways from one tensor to another."""

from collections.abc import Container, Iterable

from revgraph.graph import Tensor, gs


def reads(node: gs.Node) -> list[Tensor]:
    """What the node and the branches within it read."""
    branches = [value for value in node.attrs.values() if isinstance(value, gs.Graph)]
    inner = [tensor for branch in branches for inner in branch.nodes for tensor in reads(inner)]
    passed = [tensor for branch in branches for tensor in branch.outputs]
    return [tensor for tensor in (*node.inputs, *inner, *passed) if not tensor.is_empty()]


def ancestors(tensors: Iterable[Tensor], beyond: Container[str] = ()) -> set[str]:
    """Names of all tensors that these are computed from, themselves included.

    Args:
        tensors: Where to begin.
        beyond: Operators whose inputs do not count.
    """
    seen, waiting = set[str](), list(tensors)
    while waiting:
        tensor = waiting.pop()
        if tensor.name not in seen:
            seen.add(tensor.name)
            waiting.extend(t for node in tensor.inputs if node.op not in beyond for t in reads(node))
    return seen


# fmt: off
CONSTANT = frozenset({
    "And", "ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "NonZero", "Not",
    "Or", "Shape", "Size", "Xor",
})
# fmt: on
"""Operators whose derivative is zero wherever they have one: nothing flows back through them."""


def descendants(graph: gs.Graph, x: Tensor) -> set[str]:
    """Names of all tensors of a sorted graph that change with x by degrees, itself included."""
    live = {x.name}
    for node in graph.nodes:
        if node.op not in CONSTANT and any(tensor.name in live for tensor in reads(node)):
            live.update(tensor.name for tensor in node.outputs)
    return live


def path(graph: gs.Graph, x: gs.Variable, y: gs.Variable) -> list[gs.Node]:
    """The nodes between x and y, in topological order."""
    live = descendants(graph, x) & ancestors([y], beyond=CONSTANT)
    return [node for node in graph.nodes if any(tensor.name in live for tensor in node.outputs)]
