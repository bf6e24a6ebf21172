"""The bottleneck of layers whose reversal needs nothing of x but its size."""

from revgraph import op
from revgraph.graph import Builder, gs, static
from revgraph.rules.rule import Bottleneck


def size_of_x(fwd: Builder, node: gs.Node) -> Bottleneck:
    """r = (size of x,): constant, and so nothing at all, unless the size is known at run time only."""
    return (op.size(fwd, node.inputs[0]),)


def free_size(fwd: Builder, node: gs.Node) -> Bottleneck:
    """r = (size of x,), where only the run knows it."""
    x = node.inputs[0]
    return () if static(x.shape[2:]) else (op.size(fwd, x),)
