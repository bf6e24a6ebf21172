"""The walk: tap the forward graph, build the reversed one. It knows no operator."""

import itertools
from collections import defaultdict
from collections.abc import Container, Sequence

from revgraph.errors import RevgraphError
from revgraph.flow import descendants, path
from revgraph.graph import Builder, Tensor, gs, tidy
from revgraph.names import first_free
from revgraph.rules.rule import Bottleneck, cannot_reverse
from revgraph.variants import Variant


def reverse(fwd: Builder, table: Variant, x: gs.Variable, y: gs.Variable) -> tuple[Builder, dict[str, str]]:
    """Build the reversed graph (p, *r) -> x_hat and make r outputs of the forward graph.

    Args:
        fwd: The forward graph, which gets the taps.
        table: The variant.
        x: The input to come back to.
        y: The tensor that p stands for.

    Returns:
        The reversed graph, in the middle form, whose inputs are p and the taps that it reads; and the forward
        tensors on the way, from y back, each with the name of its x_hat.

    Raises:
        RevgraphError: A node between x and y cannot be reversed.
    """
    rev = Builder(gs.Graph(name="reversed", opset=fwd.graph.opset), fwd.names)
    p = gs.Variable("p", y.dtype, [_rows(fwd.graph), *y.shape[1:]])
    rev.graph.inputs.append(p)
    live = descendants(fwd.graph, x)
    contributions: dict[str, list[Tensor]] = defaultdict(list, {y.name: [p]})
    signals: dict[str, str] = {}
    for node in reversed(path(fwd.graph, x, y)):
        if node.outputs[0].name not in contributions:
            raise cannot_reverse(
                node, "an output other than its first is used", "choose --at before this node"
            )
        y_hat = _total(rev, node.outputs[0], contributions)
        signals[node.outputs[0].name] = y_hat.name
        for source, x_hat in reverse_layer(fwd, rev, table, node, y_hat, live):
            contributions[source.name].append(x_hat)
    if x.name not in contributions:
        why = f"it depends on '{x.name}' through sizes and comparisons alone"
        raise RevgraphError(f"cannot reverse from '{y.name}'", why, "choose another layer with --at")
    x_hat = _total(rev, x, contributions)
    shape = [p.shape[0], *x.shape[1:]]
    rev.graph.outputs = [rev.emit("Identity", x_hat, dtype=x_hat.dtype, shape=shape, name="x_hat")]
    _keep_used_taps(fwd.graph, rev.graph)
    return rev, signals | {x.name: "x_hat"}


def reverse_layer(
    fwd: Builder, rev: Builder, table: Variant, node: gs.Node, y_hat: Tensor, live: Container[str]
) -> list[tuple[Tensor, Tensor]]:
    """Tap one node and emit its reversed layer.

    Args:
        fwd: The forward graph.
        rev: The reversed graph.
        table: The variant.
        node: The node.
        y_hat: Shaped like the node's first output.
        live: Names of the tensors that depend on x.

    Returns:
        Each live input of the node with its x_hat.

    Raises:
        RevgraphError: No rule fits the node.
    """
    if node.op not in table:
        what, known = f"cannot reverse node '{node.name}'", ", ".join(sorted(table))
        raise RevgraphError(what, f"no rule for {node.op}", f"rules exist for {known}")
    sources = [tensor if tensor.name in live else None for tensor in node.inputs]
    _check_shapes(node, list(filter(None, sources)))
    rule = table[node.op]
    fwd.scope = rev.scope = node.name
    x_hats = rule.reverse(rev, node, y_hat, _declare(rev.graph, rule.bottleneck(fwd, node)))
    pairs = [(s, x_hat) for s, x_hat in itertools.zip_longest(sources, x_hats) if s is not None]
    for source, x_hat in pairs:
        if x_hat is None:
            why = f"its input '{source.name}' depends on x, and only its data can be reversed"
            raise cannot_reverse(node, why, "choose --at before this node")
    return pairs


def _check_shapes(node: gs.Node, sources: Sequence[Tensor]) -> None:
    for tensor in (*sources, node.outputs[0]):
        if tensor.shape is None:
            raise cannot_reverse(
                node, f"the shape of '{tensor.name}' is not known", "export with fixed shapes"
            )
    batch = [tensor.shape[0] if tensor.shape else 0 for tensor in (node.outputs[0], *sources)]
    if len(set(batch)) > 1 and any(isinstance(n, int) for n in batch):
        why = f"it changes the batch from {batch[1]} to {batch[0]}"
        remedy = "keep the batch on the first axis, or declare the model's batch as what the node makes of it"
        raise cannot_reverse(node, why, remedy)


def _declare(rev: gs.Graph, r: Bottleneck) -> Bottleneck:
    """The reversed graph's side of each tap; constants need none."""
    taps = tuple(t if isinstance(t, gs.Constant) else gs.Variable(t.name, t.dtype, t.shape) for t in r)
    rev.inputs.extend(tap for tap in taps if isinstance(tap, gs.Variable))
    return taps


def _total(rev: Builder, tensor: Tensor, contributions: dict[str, list[Tensor]]) -> Tensor:
    """Where x fans out, its x_hat is the sum of the consumers'."""
    terms = contributions.pop(tensor.name)
    if len(terms) == 1:
        return terms[0]
    rev.scope = tensor.name
    return rev.emit("Add" if len(terms) == 2 else "Sum", *terms, dtype=terms[0].dtype, shape=terms[0].shape)


def _rows(fwd: gs.Graph) -> str:
    """The name of p's first dimension: P, unless the model uses that for one of its own."""
    used = {dim for tensor in fwd.tensors().values() for dim in tensor.shape or () if isinstance(dim, str)}
    return first_free("P", used, start=0)


def _keep_used_taps(fwd: gs.Graph, rev: gs.Graph) -> None:
    tidy(rev)
    rev.inputs = [t for t in rev.inputs if t.outputs]
    read = {t.name for t in rev.inputs}
    taps = [t for node in fwd.nodes for t in node.outputs if t.name in read]
    fwd.outputs.extend(taps)
    tidy(fwd)
