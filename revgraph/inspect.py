"""What each layer of a model is, how it reverses, and what its bottleneck weighs."""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from revgraph import flow, network, odd_weights
from revgraph.canonical import patterns
from revgraph.errors import RevgraphError
from revgraph.finite import Count
from revgraph.graph import Builder, Shape, gs, static
from revgraph.lower import packed
from revgraph.reverse import reverse_layer
from revgraph.variants import NAMED, rules


@dataclass(frozen=True, slots=True)
class Layer:
    """One node between x and y.

    Attributes:
        name: The node's.
        op: Its operator.
        shape: Of its output.
        rules: The rule's name in each of the variants NAMED; empty where it cannot be reversed.
        bottleneck: Bytes of r per image in each of them; None where the size is known at run time only.
        packed: The same with `--bottleneck packed`.
        odd_weights: How many infinities and denormals its weights hold, by name; most hold none.
        problem: Why it cannot be reversed, else None.
    """

    name: str
    op: str
    shape: Shape | None
    rules: Sequence[str]
    bottleneck: Sequence[int | None]
    packed: Sequence[int | None]
    odd_weights: Mapping[str, Count]
    problem: str | None


def inspect(
    model: str | Path | onnx.ModelProto, at: str | None = None, input: str | None = None
) -> tuple[str, str, list[Layer]]:
    """Look at a model as `compile` does, without stopping at the first layer that cannot be reversed.

    Returns:
        The names of x and y, and the layers between them in the forward order.

    Raises:
        RevgraphError: The model cannot be read, or has no such layer or input.
    """
    graph, x, y = network.locate(network.read(model), at, input)
    with patterns.grouped(graph, y):
        live = flow.descendants(graph, x)
        return x.name, y.name, [_layer(graph, node, live) for node in flow.path(graph, x, y)]


def _layer(graph: gs.Graph, node: gs.Node, live: Container[str]) -> Layer:
    shape, found = node.outputs[0].shape, odd_weights.count([node])
    try:
        odd_weights.check(node)
        taps = [_taps(graph, node, variant, live) for variant in NAMED]
    except RevgraphError as error:
        return Layer(node.name, node.op, shape, (), (), (), found, str(error))
    names = [rules(variant)[node.op].name for variant in NAMED]
    plain, small = ([_total(map(nbytes, r)) for r in taps] for nbytes in (_bytes, packed.nbytes))
    return Layer(node.name, node.op, shape, names, plain, small, found, None)


def _taps(graph: gs.Graph, node: gs.Node, variant: str, live: Container[str]) -> list[gs.Node]:
    """The taps that reversing this node alone would need; the model's graph stays as it was."""
    names = {tensor.name for tensor in graph.tensors().values()}
    fwd, rev = Builder(graph, names), Builder(gs.Graph(opset=graph.opset), names)
    count, output = len(graph.nodes), node.outputs[0]
    y_hat = gs.Variable("p", output.dtype or np.dtype(np.float32), output.shape)
    try:
        reverse_layer(fwd, rev, rules(variant), node, y_hat, live)
    finally:
        written = {tap.outputs[0].name: tap for tap in graph.nodes[count:]}
        for tap in graph.nodes[count:]:
            tap.inputs.clear()
        del graph.nodes[count:]
    return [written[r.name] for r in rev.graph.inputs]


def _bytes(tap: gs.Node) -> int | None:
    r = tap.outputs[0]
    return math.prod(r.shape[1:]) * int(r.dtype.itemsize) if static(r.shape[1:]) else None


def _total(parts: Iterable[int | None]) -> int | None:
    known = list(parts)
    return None if None in known else sum(filter(None, known))
