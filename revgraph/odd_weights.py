"""Weights that are no numbers, or hardly any: NaN, infinities, denormals."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from revgraph import finite
from revgraph.errors import RevgraphError
from revgraph.finite import Count
from revgraph.flow import CONSTANT, ancestors
from revgraph.graph import gs

# fmt: off
UNBOUNDED = frozenset({"Clip", "Max", "Min", "Pad", "Where", *CONSTANT})
"""Operators to which an infinity says that there is no bound, or what is never the largest."""

FACTORS = frozenset({
    "BatchNormalization", "Conv", "ConvTranspose", "Div", "Einsum", "Gemm", "GroupNormalization",
    "InstanceNormalization", "LayerNormalization", "MatMul", "Mul", "PRelu", "RMSNormalization",
})
"""Those that multiply by what they hold: an infinity times zero is NaN."""
# fmt: on

SHARE = 2.0**-7
"""Of a float16 tensor's norm, what its denormals are if they are worth a word. Rounding leaves thousands in
any network; at most they are .5 % of a tensor of ResNet-50, ResNet-18 and SqueezeNet, a bias."""


def check(node: gs.Node) -> None:
    """Refuse a node that computes with NaN, or multiplies by infinities.

    Raises:
        RevgraphError: It says how many there are, and where the first is.
    """
    for reader, tensor in _weights(node):
        found = finite.count(tensor.values)
        if found.nan or (found.infinite and reader.op in FACTORS):
            why = f"its weight '{tensor.name}' holds {finite.said(tensor.values)}"
            raise RevgraphError(
                f"cannot reverse node '{reader.name}'", why, "train or export the model again"
            )


def check_ancestors(graph: gs.Graph, y: gs.Variable) -> None:
    """Refuse what y is computed from, where `check` does.

    Raises:
        RevgraphError: As there.
    """
    reached = ancestors([y])
    for node in graph.nodes:
        if any(output.name in reached for output in node.outputs):
            check(node)


def count(nodes: Iterable[gs.Node]) -> dict[str, Count]:
    """How many infinities and denormals weights hold, by name, where that is worth a word."""
    odd = dict[str, Count]()
    for node in nodes:
        for reader, tensor in _weights(node):
            found = finite.count(tensor.values)
            if reader.op in UNBOUNDED:
                found = replace(found, infinite=0)
            if found.denormal and tensor.values.dtype == np.float16:
                matters = finite.denormal_share(tensor.values) >= SHARE
                found = found if matters else replace(found, denormal=0)
            if found:
                odd[tensor.name] = found
    return odd


def _weights(node: gs.Node) -> Iterator[tuple[gs.Node, gs.Constant]]:
    """The constants that the node, or one in its branches, reads, each with its reader."""
    for tensor in node.inputs:
        if isinstance(tensor, gs.Constant):
            yield node, tensor
    for branch in node.subgraphs(recursive=True):
        for inner in branch.nodes:
            yield from ((inner, tensor) for tensor in inner.inputs if isinstance(tensor, gs.Constant))
