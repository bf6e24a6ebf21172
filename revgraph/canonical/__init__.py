"""Any CNN becomes one that the rules fit: ordered passes that leave alone what it computes."""

from collections.abc import Callable

import onnx

from revgraph import weights
from revgraph.canonical.consistency import check_attributes, check_tensors
from revgraph.canonical.on_graph import (
    cast_like,
    fold_constants,
    fold_small,
    global_max_pool,
    rename_reserved,
    resolve_auto_pad,
    sequence_to_slices,
    split_to_slices,
)
from revgraph.canonical.on_model import (
    check,
    convert_opset,
    drop_empty_lists,
    inline_functions,
    name_nodes,
    own_domain,
    separate_inputs,
)
from revgraph.canonical.shapes import infer_shapes, settle_ceil_mode
from revgraph.canonical.sizes import settle
from revgraph.errors import invalid_model
from revgraph.graph import attach, gs, inner_tensors, tidy
from revgraph.weights import LightModel

MODEL_PASSES: tuple[Callable[[onnx.ModelProto], onnx.ModelProto], ...] = (
    own_domain,
    check,
    inline_functions,
    separate_inputs,
    drop_empty_lists,
    name_nodes,
    check_attributes,
    convert_opset,
    settle_ceil_mode,
    infer_shapes,
)
SHAPE_PASSES: tuple[Callable[[gs.Graph], bool], ...] = (
    cast_like,
    sequence_to_slices,
    fold_small,
    settle,
)
GRAPH_PASSES: tuple[Callable[[gs.Graph], object], ...] = (
    fold_constants,
    check_tensors,
    rename_reserved,
    split_to_slices,
    global_max_pool,
    resolve_auto_pad,
)

MAX_ROUNDS = 16
"""What is folded in one round tells the next more; exporters' chains need about three."""


def canonicalise(source: onnx.ModelProto | LightModel) -> gs.Graph:
    """The model as a graph that the rules fit.

    Requires: a model that `onnx.checker` accepts, apart from what is refused below.
    Ensures: one opset of ONNX's own domain within OPSETS; every node named; known shapes where ONNX can tell;
    constants folded; explicit pads; no tensor called `p` or `x_hat`.

    Raises:
        RevgraphError: The model is invalid, uses other domains, or reserves a name of revgraph's.
    """
    light = source if isinstance(source, LightModel) else weights.detach(source)
    model = light.as_inputs()
    for model_pass in MODEL_PASSES:
        model = model_pass(model)
    try:
        graph = _import(model)
        for _ in range(MAX_ROUNDS):
            if not [shape_pass for shape_pass in SHAPE_PASSES if shape_pass(graph)]:
                break
            _forget_placeholders(graph)
            graph = _import(infer_shapes(gs.export_onnx(tidy(graph))))
        attach(graph, light.weights)
        for graph_pass in GRAPH_PASSES:
            graph_pass(graph)
        tidy(graph)
    except gs.OnnxGraphSurgeonException as error:
        raise invalid_model(str(error)) from error
    return graph


def _import(model: onnx.ModelProto) -> gs.Graph:
    try:
        graph = gs.import_onnx(model)
        for tensor in (*graph.tensors().values(), *inner_tensors(graph)):
            if isinstance(tensor, gs.Constant):
                tensor.values.shape  # noqa: B018 - reads it, which is lazy
    except Exception as error:  # whatever a tensor of contradictory type, shape and data leads to
        raise invalid_model(f"a tensor of it cannot be read: {error}") from error
    return graph


def _forget_placeholders(graph: gs.Graph) -> None:
    """Take back the names that inference made up: it prefers a name it is given to what it finds."""
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Variable) and tensor.shape is not None:
            tensor.shape = [None if str(n).startswith("unk__") else n for n in tensor.shape]
