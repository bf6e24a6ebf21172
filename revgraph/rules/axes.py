"""Axes that a layer reduces, or that a tensor was broadcast along."""

import numpy as np

from revgraph.graph import Builder, Tensor, gs
from revgraph.rules.rule import cannot_reverse, constant


def reduced_axes(node: gs.Node) -> list[int]:
    """Which axes a Reduce operator sums over; it may name them in an attribute or an input."""
    rank = len(node.inputs[0].shape)
    axes = node.attrs.get("axes")
    if len(node.inputs) > 1 and not node.inputs[1].is_empty():
        axes = constant(node, 1, "list of axes").ravel().tolist()
    if not axes:
        axes = [] if node.attrs.get("noop_with_empty_axes", 0) else list(range(rank))
    if 0 in (found := sorted(axis % rank for axis in axes)):
        raise cannot_reverse(node, "it reduces the batch", "keep the batch, or choose --at before this node")
    return found


def keep_axes(rev: Builder, node: gs.Node, y_hat: Tensor, axes: list[int]) -> Tensor:
    """y_hat as it were had the node kept the axes that it reduced."""
    if node.attrs.get("keepdims", 1):
        return y_hat
    shape = [1 if i in axes else n for i, n in enumerate([y_hat.shape[0], *node.inputs[0].shape[1:]])]
    return rev.emit("Unsqueeze", y_hat, np.array(axes), dtype=y_hat.dtype, shape=shape)


def unbroadcast(rev: Builder, y_hat: Tensor, x: Tensor) -> Tensor | None:
    """Sum y_hat over the axes along which x was broadcast; None for an x without a batch of its own."""
    if isinstance(x, gs.Constant) or x.shape is None or len(x.shape) != len(y_hat.shape):
        return None
    pairs = zip(x.shape, y_hat.shape, strict=True)
    axes = [axis for axis, (n, m) in enumerate(pairs) if axis and n == 1 and m != 1]
    if not axes:
        return y_hat
    shape = [1 if axis in axes else n for axis, n in enumerate(y_hat.shape)]
    return rev.emit("ReduceSum", y_hat, np.array(axes), dtype=y_hat.dtype, shape=shape, keepdims=1)
