"""A network before and after, as in the paper's Fig. 2, with the bottleneck dotted between the two.

The forward graph runs down, the reversed one back up beside it, and a layer is level with its reversed layer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from revgraph import flow, network, writing
from revgraph.canonical import patterns
from revgraph.errors import RevgraphError, missing_extra
from revgraph.graph import DOMAIN, Builder, Tensor, gs
from revgraph.reverse import reverse
from revgraph.variants import rules

SUFFIXES = ("dot", "svg", "png", "pdf")

FONT = {"fontname": "Helvetica", "fontsize": "10"}
GRAPH = FONT | {"newrank": "true", "nodesep": "0.8", "ranksep": "0.3"}
NODE = FONT | {"shape": "box", "style": "filled", "fillcolor": "white"}


def draw(
    model: str | Path | onnx.ModelProto,
    file: Path,
    *,
    at: str | None = None,
    input: str | None = None,
    variant: str = "desalinet",
) -> None:
    """Draw the forward graph up to y and its reversed graph, in the middle form.

    Args:
        model: As for `compile`.
        file: Written: Graphviz's own text (.dot), or a picture (.svg, .png, .pdf).
        at: As for `compile`.
        input: As for `compile`.
        variant: Which reversed graph.

    Raises:
        RevgraphError: The model cannot be reversed, the suffix is unknown, or Graphviz is not installed.
    """
    what = f"cannot draw '{file}'"
    suffix = file.suffix.lower().removeprefix(".")
    if suffix not in SUFFIXES:
        raise RevgraphError(what, f"unknown suffix '{file.suffix}'", f"known: .{', .'.join(SUFFIXES)}")
    try:
        import graphviz
    except ImportError as error:
        raise missing_extra(what, "graphviz", "draw") from error
    drawing = _drawing(model, at, input, variant)
    try:
        content = drawing.source.encode() if suffix == "dot" else drawing.pipe(format=suffix)
    except graphviz.ExecutableNotFound as error:
        remedy = "install Graphviz, or name a .dot file"
        raise RevgraphError(what, "Graphviz's program dot is not installed", remedy) from error
    writing.write_all({file: content})


def _drawing(model: str | Path | onnx.ModelProto, at: str | None, input: str | None, variant: str) -> Any:
    graph, x, y = network.locate(network.read(model), at, input)
    with patterns.grouped(graph, y):
        return _both(graph, x, y, variant)


def _both(graph: gs.Graph, x: gs.Variable, y: gs.Variable, variant: str) -> Any:
    """Both graphs as a drawing."""
    import graphviz

    path, table = flow.path(graph, x, y), rules(variant)
    built, signals = reverse(Builder(graph, {*graph.tensors(), "p", "x_hat"}), table, x, y)
    p, *taps = built.graph.inputs
    drawing = graphviz.Digraph(graph_attr=GRAPH, node_attr=NODE, edge_attr=FONT | {"arrowsize": "0.7"})
    ids = _Ids()
    _forward(drawing, ids, x, path)
    _reversed(drawing, ids, p, built.graph.nodes)
    for node in path:
        reversed_layer = [
            each
            for each in built.graph.nodes
            if _layer(each) == node.name and each.outputs[0].name != signals[node.outputs[0].name]
        ]
        _level(drawing, ids, node, reversed_layer, table[node.op].name)
    outputs = {node.name: node.outputs[0] for node in path}
    _bottleneck(drawing, ids, [node for node in graph.nodes if node.domain == DOMAIN], taps, outputs)
    return drawing


class _Ids(dict[str, str]):
    """Short names for tensors, whose own may hold what Graphviz reads as ports."""

    def __missing__(self, tensor: str) -> str:
        return self.setdefault(tensor, f"t{len(self)}")


def _forward(drawing: Any, ids: _Ids, x: Tensor, path: Sequence[gs.Node]) -> None:
    """A box per layer, an arrow per use."""
    drawing.node(ids[x.name], _label(x.name, x), shape="ellipse")
    known = {x.name, *(node.outputs[0].name for node in path)}
    for node in path:
        y = node.outputs[0]
        drawing.node(ids[y.name], _label(f"{node.op}  {node.name}", y), fillcolor="lightblue")
        for tensor in node.inputs:
            if tensor.name in known:
                drawing.edge(ids[tensor.name], ids[y.name])


def _reversed(drawing: Any, ids: _Ids, p: Tensor, nodes: Sequence[gs.Node]) -> None:
    """A box per operation of the middle form, an arrow per use, upwards."""
    drawing.node(ids[p.name], _label(p.name, p), shape="ellipse")
    known = {p.name, *(node.outputs[0].name for node in nodes)}
    for node in nodes:
        x_hat = node.outputs[0]
        if x_hat.name == "x_hat":
            drawing.node(ids[x_hat.name], _label(x_hat.name, x_hat), shape="ellipse")
        else:
            drawing.node(
                ids[x_hat.name], _label(f"{node.op}  {_layer(node)}", x_hat), fillcolor="lightyellow"
            )
        for tensor in node.inputs:
            if tensor.name in known:  # written the other way round, so that x_hat lies above
                drawing.edge(ids[x_hat.name], ids[tensor.name], dir="back")


def _level(drawing: Any, ids: _Ids, node: gs.Node, reversed_layer: Sequence[gs.Node], rule: str) -> None:
    """A frame about a reversed layer, with the rule's name, level with the layer itself."""
    if not reversed_layer:  # y_hat goes on as it is
        return
    boxes = [ids[each.outputs[0].name] for each in reversed_layer]
    with drawing.subgraph(name=f"cluster_{boxes[0]}") as frame:
        frame.attr(label=rule, labeljust="l", fontsize="9", style="rounded", color="grey", margin="18")
        for box in boxes:
            frame.node(box)
    with drawing.subgraph() as level:
        level.attr(rank="same")
        level.node(ids[node.outputs[0].name])
        level.node(boxes[0])


def _bottleneck(
    drawing: Any, ids: _Ids, taps: Sequence[gs.Node], given: Sequence[Tensor], layers: Mapping[str, Tensor]
) -> None:
    """A dotted arrow from a layer to each operation that reads what it hands across."""
    read = {tensor.name: tensor for tensor in given}
    for tap in taps:
        r = tap.outputs[0]
        source = layers.get(_layer(tap), tap.inputs[0])
        for reader in read[r.name].outputs:
            arrow = ids[source.name], ids[reader.outputs[0].name]
            drawing.edge(*arrow, f" {tap.op.lower()} ", style="dotted", constraint="false")


def _layer(node: gs.Node) -> str:
    """The layer that a node was written for: names are `<layer>/<operator>`."""
    return str(node.name.rpartition("/")[0])


def _label(title: str, tensor: Tensor) -> str:
    shape = " x ".join("?" if dim is None else str(dim) for dim in tensor.shape or ())
    return _plain(f"{title}\n{shape}")


def _plain(text: str) -> str:
    """Without what Graphviz reads as an escape."""
    return text.replace("\\", "/")
