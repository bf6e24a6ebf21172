"""The walk: forward through the user's nodes, and back through the reversed network."""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import onnx

from revgraph.errors import RevgraphError
from revgraph.reference.constants import array, floats
from revgraph.reference.graph import Graph, run
from revgraph.reference.layer import Array, Reversed, dependent, read, tensor, values_read
from revgraph.reference.patterns import whole
from revgraph.reference.plain import plain
from revgraph.reference.table import reversals, rule


def forward(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run the user's model.

    Args:
        model: Any opset from 7 on; the shapes it declares are not trusted.
        feeds: A value for each input that has no initializer.

    Returns:
        Every tensor by name: feeds, initializers, constants, activations. Floating ones are float64.
    """
    tensors = {initializer.name: array(initializer) for initializer in model.graph.initializer}
    tensors |= {name: floats(value) for name, value in feeds.items()}
    for node in plain(model.graph.node, tensors):
        tensors |= run(model, node, tensors)
    return tensors


def reverse(
    model: onnx.ModelProto,
    tensors: Mapping[str, Array],
    *,
    variant: str,
    at: str,
    to: str,
    p: Array,
    lrn: str | None = None,
) -> dict[str, Array]:
    """Run the reversed network from p at the tensor `at` back to the input `to`.

    Args:
        model: What `tensors` came from.
        tensors: The result of `forward` for N images; every bottleneck r is read off it.
        variant: One of the eight of Fig. 3.
        at: The tensor y that is projected onto p.
        to: The input x.
        p: (P, *y.shape[1:]); P is N, or anything if N is 1.
        lrn: "identity" or "bp"; by default "bp" for the variant "salinet" and "identity" for the others.

    Returns:
        x_hat of every tensor on the way, by name, each with P rows.
    """
    graph = Graph(model, list(plain(model.graph.node, tensors)), tensors)
    rules, y, p = reversals(variant, lrn), tensor(tensors, at), np.asarray(p, np.float64)
    if at not in dependent(graph.nodes, to):
        raise RevgraphError(
            f"cannot reverse from {at!r}", f"it does not depend on {to!r}", "choose one that does"
        )
    if p.shape[1:] != y.shape[1:] or len(y) not in (1, len(p)):
        why = f"p is {p.shape} and {at!r} is {y.shape}"
        raise RevgraphError(
            f"cannot reverse from {at!r}", why, "feed a row of p for each image, or one image"
        )
    back = partial(_walk, model, whole(graph, at), tensors, rules, to)
    if len(p) == len(y):
        return {at: p} | back({at: p})
    rows = [{at: row[None]} | back({at: row[None]}) for row in p]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def reverse_layers(
    model: onnx.ModelProto,
    tensors: Mapping[str, Array],
    y_hats: Mapping[str, Array],
    *,
    variant: str,
    at: str,
    to: str,
    lrn: str | None = None,
) -> dict[str, Array]:
    """Run each reversed layer by itself, on a y_hat that is given in place of what the layers above give.

    Args:
        model: As for `reverse`, like `tensors`, `variant`, `at`, `to` and `lrn`.
        tensors: See there.
        y_hats: By the name of the forward tensor, each shaped like it. Where a tensor is left out, what
            comes back to it goes on.
        variant: See there.
        at: See there.
        to: See there.
        lrn: See there.

    Returns:
        x_hat of every tensor that something comes back to, by name.
    """
    graph = Graph(model, list(plain(model.graph.node, tensors)), tensors)
    return _walk(model, whole(graph, at), tensors, reversals(variant, lrn), to, y_hats)


def _walk(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    tensors: Mapping[str, Array],
    rules: Mapping[str, Reversed],
    to: str,
    given: Mapping[str, Array],
) -> dict[str, Array]:
    """What comes back to each tensor, last node first; where a tensor fans out, it adds.

    Nothing comes back through a truth value, such as the condition of a Where.
    """
    x_hats: dict[str, Array] = {}
    flowing, y_hats = dependent(nodes, to), ChainMap(dict(given), x_hats)
    for node in reversed(nodes):
        for output, y_hat in [(i, y_hats[name]) for i, name in enumerate(node.output) if name in y_hats]:
            layer = replace(read(model, node, tensors), output=output)
            for operand, name in enumerate(values_read(node)):
                if name in flowing and tensors[name].dtype != bool:
                    x_hats[name] = x_hats.get(name, 0.0) + rule(layer, operand, rules)(layer, y_hat, operand)
    return x_hats
