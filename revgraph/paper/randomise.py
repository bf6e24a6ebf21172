"""Weights made random, layer by layer: what then stays of an image is not the network's knowledge."""

from collections.abc import Container
from pathlib import Path

import numpy as np
import onnx

from revgraph import network
from revgraph.canonical import canonicalise
from revgraph.graph import export, gs, tidy

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def products(path: list[gs.Node]) -> list[str]:
    """Nodes with weights, from x to y."""
    return [node.name for node in path if node.op in PRODUCTS and _weights(node)]


def randomised(
    model: str | Path | onnx.ModelProto, layers: Container[str], size: float | None = None
) -> onnx.ModelProto:
    """The network with normal weights, and no biases, in some of its products; the same again each time.

    Args:
        model: The network.
        layers: Names of the nodes.
        size: Standard deviation; None for that of each layer's own weights.
    """
    rng = np.random.default_rng(0)
    graph = canonicalise(network.read(model).light)
    for node in graph.nodes:
        if node.name in layers:
            for i, tensor in _weights(node).items():
                values = rng.standard_normal(tensor.shape) * (tensor.values.std() if size is None else size)
                node.inputs[i] = _replaced(tensor, values if i < 2 else np.zeros(tensor.shape))
    return export(tidy(graph)).whole()


def _weights(node: gs.Node) -> dict[int, gs.Constant]:
    """Constant inputs by place: the kernel or matrix, and the bias."""
    return {i: t for i, t in enumerate(node.inputs) if isinstance(t, gs.Constant)}


def _replaced(tensor: gs.Constant, values: np.ndarray) -> gs.Constant:
    return gs.Constant(f"{tensor.name}/random", values.astype(tensor.dtype))
