"""What a target is, and the walk that applies one to a pair of graphs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from revgraph.graph import DOMAIN, Builder, Tensor, gs, replace, tidy
from revgraph.simplify import Pass

Lowering = Callable[[Builder, gs.Node], Tensor]


@dataclass(frozen=True, slots=True)
class Encoding:
    """How one kind of r crosses from the forward file to the reversed one; both sides, so they cannot drift.

    Attributes:
        encode: Lowers the tap in the forward graph; its result's dtype and shape become the tap's.
        decode: Lowers the reversed layer that reads the tap.
    """

    encode: Lowering
    decode: Lowering


@dataclass(frozen=True, slots=True)
class Target:
    """A place to run, and how each operation of the middle form is computed there.

    Attributes:
        name: As in --target.
        taps: Operator of a tap -> its lowering in the forward graph.
        layers: Operator of a reversed layer -> its lowering in the reversed graph.
        passes: What is simplified before.
        finish: What is arranged after, in plain ONNX.
    """

    name: str
    taps: Mapping[str, Lowering]
    layers: Mapping[str, Lowering]
    passes: tuple[Pass, ...] = ()
    finish: tuple[Pass, ...] = ()


def lower(target: Target, fwd: Builder, rev: Builder) -> None:
    """Replace every node of the middle form, in place; afterwards both graphs are plain ONNX."""
    _apply(target.taps, fwd)
    encoded = {tap.name: tap for tap in fwd.graph.outputs}
    for tensor in rev.graph.inputs:
        if tap := encoded.get(tensor.name):
            tensor.dtype, tensor.shape = tap.dtype, tap.shape
    _apply(target.layers, rev)
    for each in target.finish:
        each(fwd, rev)


def _apply(table: Mapping[str, Lowering], builder: Builder) -> None:
    for node in [node for node in builder.graph.nodes if node.domain == DOMAIN]:
        builder.scope = node.name
        lowered = table[node.op](builder, node)
        if any(lowered is tensor for tensor in node.inputs):  # which others may read, too
            lowered = builder.emit("Identity", lowered, dtype=lowered.dtype, shape=lowered.shape)
        replace(node, lowered)
    tidy(builder.graph)
