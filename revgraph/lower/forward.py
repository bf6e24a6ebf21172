"""Layers of the forward graph itself that onnxruntime's CPU computes faster in another form, to rounding."""

import numpy as np

from revgraph.graph import Builder, Tensor, gs, producer, replace, tidy
from revgraph.lower.blocks import blockable
from revgraph.simplify import per_channel

# ---------------------------------------------------------------- batch normalisation


def merge_affine(fwd: Builder, rev: Builder) -> None:
    """BatchNormalization and the products and sums by channel behind it, as Caffe has them, become one.

    It is then one depthwise convolution with its ReLU: without it DenseNet-121 takes 1.19 of the time. After
    a convolution onnxruntime folds all of them anyway.
    """
    for node in list(fwd.graph.nodes):
        if node.op not in ("Mul", "Add"):
            continue
        norm, factor = _normalised(node)
        if norm is None or factor is None or not _only_reader(norm.outputs[0], fwd):
            continue
        fwd.scope = node.name
        gamma, beta = (norm.inputs[i].values for i in (1, 2))
        values = (gamma * factor, beta * factor) if node.op == "Mul" else (gamma, beta + factor)
        for i, array in enumerate(values, 1):
            array = array.astype(gamma.dtype)
            norm.inputs[i] = gs.Constant(fwd.fresh(f"{norm.inputs[i].name}/merged"), array)
        replace(node, norm.outputs[0])
    tidy(fwd.graph)


def _normalised(node: gs.Node) -> tuple[gs.Node | None, np.ndarray | None]:
    """The normalisation before a product or sum, and the other operand, (C,)."""
    for y, other in (node.inputs, node.inputs[::-1]):
        norm = producer(y)
        if norm is None or norm.op != "BatchNormalization" or not isinstance(other, gs.Constant):
            continue
        before = producer(norm.inputs[0])
        if before is not None and before.op == "Conv":
            continue
        held = all(isinstance(tensor, gs.Constant) for tensor in norm.inputs[1:])
        if not held or len(norm.outputs) > 1 or not blockable(y) or not per_channel(other.values, y.shape):
            continue
        if other.values.size in (1, y.shape[1]):
            return norm, np.broadcast_to(other.values.ravel(), norm.inputs[1].shape)
    return None, None


def _only_reader(tensor: Tensor, fwd: Builder) -> bool:
    return len(tensor.outputs) == 1 and all(tensor is not output for output in fwd.graph.outputs)


# ---------------------------------------------------------------- local response normalisation


MOST = 512
"""Channels, as the convolution has the square of that in weights."""


def square_roots(fwd: Builder, rev: Builder) -> None:
    """LRN's usual exponent, y = x / s^(3/4), as a convolution for s and two square roots, no power.

    Without it Inception v1 takes 1.14 of the time, AlexNet 1.13.
    """
    for node in list(fwd.graph.nodes):
        if node.op != "LRN" or node.attrs.get("beta", 0.75) != 0.75 or not blockable(node.inputs[0]):
            continue
        if node.inputs[0].shape[1] > MOST:
            continue
        fwd.scope = node.name
        replace(node, _normalise(fwd, node))
    tidy(fwd.graph)


def _normalise(fwd: Builder, node: gs.Node) -> gs.Variable:
    (x,), size = node.inputs, node.attrs["size"]
    channels, like = x.shape[1], {"dtype": x.dtype, "shape": x.shape}
    before = np.arange(channels)[:, None] - np.arange(channels)
    near = (before <= (size - 1) // 2) & (before >= -(size // 2))
    weight = (near * (node.attrs.get("alpha", 1e-4) / size)).astype(x.dtype)[..., None, None]
    bias = np.full(channels, node.attrs.get("bias", 1.0), x.dtype)
    s = fwd.emit("Conv", fwd.emit("Mul", x, x, **like), weight, bias, **like)
    root = fwd.emit("Sqrt", s, **like)
    power = fwd.emit("Mul", root, fwd.emit("Sqrt", root, **like), **like)
    return fwd.emit("Div", x, power, **like)
