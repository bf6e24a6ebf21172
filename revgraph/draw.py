"""A network before and after, as in the paper's Fig. 2, with the bottleneck dotted between the two."""

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

    path = flow.path(graph, x, y)
    built, _ = reverse(Builder(graph, {*graph.tensors(), "p", "x_hat"}), rules(variant), x, y)
    rev = built.graph
    p, *taps = rev.inputs
    drawing = graphviz.Digraph(node_attr={"shape": "box", "fontname": "Helvetica", "fontsize": "10"})
    ids = _Ids()
    _side(drawing, ids, [x], path, "lightblue")
    _side(drawing, ids, [p], rev.nodes, "lightyellow")
    read = {tap.name: tap for tap in taps}
    for node in graph.nodes:
        if node.domain == DOMAIN:  # what remains of these is the bottleneck
            (tap,) = node.outputs
            for reader in read[tap.name].outputs:
                arrow = (ids[node.inputs[0].name], ids[reader.outputs[0].name])
                drawing.edge(*arrow, node.op.lower(), style="dotted", constraint="false", fontsize="9")
    return drawing


class _Ids(dict[str, str]):
    """Short names for tensors, whose own may hold what Graphviz reads as ports."""

    def __missing__(self, tensor: str) -> str:
        return self.setdefault(tensor, f"t{len(self)}")


def _side(drawing: Any, ids: _Ids, starts: list[Tensor], nodes: list[gs.Node], colour: str) -> None:
    """One graph: a box per tensor that is written or given, an arrow per use."""
    drawing.node(ids[starts[0].name], _label(starts[0].name, starts[0]), shape="ellipse")
    known = {starts[0].name} | {node.outputs[0].name for node in nodes}
    for node in nodes:
        y = node.outputs[0]
        name = node.name.rpartition("/")[0] if node.domain == DOMAIN else node.name
        drawing.node(ids[y.name], _label(f"{node.op}  {name}", y), style="filled", fillcolor=colour)
        for tensor in node.inputs:
            if tensor.name in known:
                drawing.edge(ids[tensor.name], ids[y.name])


def _label(title: str, tensor: Tensor) -> str:
    shape = " x ".join("?" if dim is None else str(dim) for dim in tensor.shape or ())
    return f"{title}\n{shape}".replace("\\", "/")
