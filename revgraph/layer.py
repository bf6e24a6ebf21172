"""What LAYER and --input mean."""

import difflib
from collections.abc import Container

import numpy as np

from revgraph.errors import RevgraphError, invalid_model
from revgraph.flow import ancestors
from revgraph.graph import gs, producer, static


def find_layer(graph: gs.Graph, at: str | None, named: Container[str] | None = None) -> gs.Variable:
    """The tensor that LAYER names: a tensor's name, else a node's; by default the one before the softmax.

    Args:
        graph: The canonical graph.
        at: LAYER.
        named: The names that the user's own model has; raising its opset may put others before a softmax.

    Raises:
        RevgraphError: Nothing is called so, or it is not one that can be reversed.
    """
    if not graph.outputs:
        raise invalid_model("it has no outputs")
    if at is None:
        return _before_softmax(graph.outputs[0], named)
    tensors = {t.name: t for t in graph.tensors().values() if isinstance(t, gs.Variable)}
    nodes = {node.name: node.outputs[0] for node in graph.nodes}
    if at not in tensors and at not in nodes:
        nearest = difflib.get_close_matches(at, tensors | nodes, n=5, cutoff=0)
        names = ", ".join(f"'{name}'" for name in nearest)
        why = "no tensor and no node is called so"
        raise RevgraphError(f"no layer '{at}'", why, f"the nearest names are {names}")
    return tensors.get(at) or nodes[at]


THROUGH = ("Identity", "Cast", "Flatten", "Reshape", "Squeeze")


def _before_softmax(output: gs.Variable, named: Container[str] | None) -> gs.Variable:
    """Footnote 3: the network only till the layer before the softmax."""
    node = producer(output)
    while node is not None and node.op in THROUGH:
        node = producer(node.inputs[0])
    if node is None or node.op not in ("Softmax", "LogSoftmax"):
        return output
    tensor = node.inputs[0]
    while (
        named is not None and tensor.name not in named and (node := producer(tensor)) and node.op in THROUGH
    ):
        tensor = node.inputs[0]
    return tensor


def find_input(graph: gs.Graph, y: gs.Variable, name: str | None) -> gs.Variable:
    """The input that x_hat belongs to: by default the only one that y depends on.

    Raises:
        RevgraphError: There are several, none, or it cannot be one.
    """
    what = f"cannot reverse from '{y.name}'"
    if any(y is tensor for tensor in graph.inputs):
        raise RevgraphError(what, "it is an input of the model", "choose a layer with --at")
    reached = ancestors([y])
    inputs = [x for x in graph.inputs if x.name in reached]
    listed = ", ".join(f"'{x.name}'" for x in inputs)
    if name is not None:
        chosen = [x for x in graph.inputs if x.name == name]
        if not chosen:
            names = ", ".join(f"'{x.name}'" for x in graph.inputs)
            raise RevgraphError(
                f"no input '{name}'", "the model has none called so", f"its inputs are {names}"
            )
        if name not in reached:
            raise RevgraphError(what, f"it does not depend on '{name}'", f"it depends on {listed}")
        inputs = chosen
    if not inputs:
        raise RevgraphError(what, "it depends on no input", "choose another layer with --at")
    if len(inputs) > 1:
        raise RevgraphError(what, f"it depends on several inputs, {listed}", "choose one with --input")
    _check_ends(what, inputs[0], y)
    return inputs[0]


def _check_ends(what: str, x: gs.Variable, y: gs.Variable) -> None:
    if x.shape is None or not 3 <= len(x.shape) <= 5:
        why = f"its input '{x.name}' has shape {x.shape}"
        raise RevgraphError(what, why, "x needs 3 to 5 axes, (N, C, ...)")
    for tensor in (x, y):
        if 0 in (tensor.shape or ()):
            raise RevgraphError(what, f"'{tensor.name}' has no elements", "check the model's sizes")
    if y.dtype is None or not np.issubdtype(y.dtype, np.floating):
        why = f"its elements are {y.dtype}, not floating-point"
        raise RevgraphError(what, why, "choose another layer with --at")
    if not y.shape or (static(both := (x.shape[0], y.shape[0])) and both[0] != both[1]):
        why = f"its shape {y.shape} has no batch axis"
        raise RevgraphError(what, why, "choose a layer of shape (N, ...)")
