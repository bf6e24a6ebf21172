"""Any CNN becomes one that the rules fit: ordered passes that leave alone what it computes."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.reference
import onnx.shape_inference
import onnx.version_converter

from revgraph import weights
from revgraph.errors import RevgraphError
from revgraph.graph import activations, gs, static, tensor_names
from revgraph.op import TAPS
from revgraph.window import Window, explicit_pads

OPSETS = (17, 21)
"""Lowest and highest opset of the graphs: 17 has every operator needed, and no CUDA kernel lags behind 21."""
IRS = (8, 10)
RESERVED = ("p", "x_hat")
MAX_FOLDED = 2**28
"""Most elements that a folded constant may have: 1 GiB of float32."""


def canonicalise(model: onnx.ModelProto) -> gs.Graph:
    """The model as a graph that the rules fit.

    Requires: a model that `onnx.checker` accepts, apart from what is refused below.
    Ensures: one opset of ONNX's own domain within OPSETS; every node named; known shapes where ONNX can tell;
    constants folded; explicit pads; no tensor called `p` or `x_hat`.

    Raises:
        RevgraphError: The model is invalid, uses other domains, or reserves a name of revgraph's.
    """
    model, detached = weights.detach(model)
    for model_pass in MODEL_PASSES:
        model = model_pass(model)
    try:
        graph = gs.import_onnx(model)
        _attach(graph, detached)
        for graph_pass in GRAPH_PASSES:
            graph_pass(graph)
        graph.cleanup().toposort()
    except gs.OnnxGraphSurgeonException as error:
        raise _invalid(str(error)) from error
    return graph


def _attach(graph: gs.Graph, detached: weights.Weights) -> None:
    graph.inputs = [tensor for tensor in graph.inputs if tensor.name not in detached]
    for tensor in graph.tensors().values():
        if tensor.name in detached:
            tensor.to_constant(onnx.numpy_helper.to_array(detached[tensor.name]))


def _invalid(why: str) -> RevgraphError:
    return RevgraphError("this model is not valid ONNX", why, "check it with onnx.checker.check_model")


# ---------------------------------------------------------------- passes on the model


def own_domain(model: onnx.ModelProto) -> onnx.ModelProto:
    """ONNX's own domain has two spellings, "" and "ai.onnx"; one remains."""
    imported = (entry for function in model.functions for entry in function.opset_import)
    for entry in (*model.opset_import, *imported):
        entry.domain = "" if entry.domain == "ai.onnx" else entry.domain
    for node in _all_nodes(model):
        node.domain = "" if node.domain == "ai.onnx" else node.domain
    return model


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes of the model, its functions and all subgraphs."""
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting.extend(graph.node)


def check(model: onnx.ModelProto) -> onnx.ModelProto:
    """Refuse what no pass could mend, naming it before onnx.checker would in its own words."""
    version = next((entry.version for entry in model.opset_import if not entry.domain), "not given")
    newest = onnx.defs.onnx_opset_version()
    if not isinstance(version, int) or not 7 <= version <= newest:
        remedy = f"export it at an opset from 7 to {newest}"
        raise RevgraphError("cannot read this model", f"its opset is {version}", remedy)
    functions = {(function.domain, function.name) for function in model.functions}
    for node in _all_nodes(model):
        if (node.domain, node.op_type) not in functions:
            _check_operator(node)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise _invalid(str(error)) from error
    return model


def _check_operator(node: onnx.NodeProto) -> None:
    remedy = "export with standard operators only"
    name = node.name or next(iter(node.output), "")
    if node.domain:
        what = f"cannot take node '{name}' ({node.domain}.{node.op_type})"
        raise RevgraphError(what, f"'{node.domain}' is not ONNX's own domain", remedy)
    if not onnx.defs.has(node.op_type):
        raise RevgraphError(
            f"cannot take node '{name}' ({node.op_type})", "ONNX has no such operator", remedy
        )


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Model-local functions become the nodes they stand for."""
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def separate_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Initializers listed as inputs too, as before IR 4, are no inputs; IR rises to what allows that."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = min(max(model.ir_version, IRS[0]), IRS[1])
    return model


def name_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Unnamed nodes are named after their first output; no name repeats, and none hides a tap's."""
    taken, tensors = set[str](), set(tensor_names(model))
    for node in model.graph.node:
        stem = node.name or next(filter(None, node.output), node.op_type)
        names = itertools.chain([stem], (f"{stem}_{i}" for i in itertools.count(1)))
        free = (n for n in names if n not in taken and tensors.isdisjoint(f"{n}/{tap}" for tap in TAPS))
        node.name = next(free)
        taken.add(node.name)
    return model


def convert_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Raise or lower the opset into OPSETS."""
    version = next(entry.version for entry in model.opset_import if not entry.domain)
    target = min(max(version, OPSETS[0]), OPSETS[1])
    if target == version:
        return model
    try:
        return onnx.version_converter.convert_version(model, target)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        remedy = f"export it at an opset from {OPSETS[0]} to {OPSETS[1]}"
        what = f"cannot convert this model from opset {version} to {target}"
        raise RevgraphError(what, str(error), remedy) from error


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write the shape of every tensor that ONNX can tell."""
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError) as error:
        raise _invalid(str(error)) from error


MODEL_PASSES: tuple[Callable[[onnx.ModelProto], onnx.ModelProto], ...] = (
    own_domain,
    check,
    inline_functions,
    separate_inputs,
    name_nodes,
    convert_opset,
    infer_shapes,
)


# ---------------------------------------------------------------- passes on the graph


def rename_reserved(graph: gs.Graph) -> None:
    """Inner tensors called `p` or `x_hat` give way; inputs and outputs so called cannot."""
    tensors = graph.tensors()
    for name in RESERVED:
        tensor = tensors.get(name)
        if any(t is tensor for t in (*graph.inputs, *graph.outputs)):
            what = f"cannot compile a model with an input or output called '{name}'"
            raise RevgraphError(what, "the reversed file uses that name", "rename it")
        if tensor is not None:
            tensor.name = next(n for i in itertools.count(1) if (n := f"{name}_{i}") not in tensors)


# fmt: off
FOLDABLE = frozenset({
    "Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Expand", "Gather", "Identity", "Mul",
    "Range", "Reshape", "Shape", "Size", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze",
})
# fmt: on


def fold_constants(graph: gs.Graph) -> None:
    """Nodes of constants alone become constants of at most MAX_FOLDED elements; so does a static Shape."""
    graph.toposort()
    for node in graph.nodes:
        output = node.outputs[0] if len(node.outputs) == 1 else None
        if node.op not in FOLDABLE or output is None or any(output is tensor for tensor in graph.outputs):
            continue
        if (values := _fold(node, graph.opset)) is not None:
            node.outputs.clear()
            output.to_constant(values)


def _fold(node: gs.Node, opset: int) -> np.ndarray | None:
    if node.op in ("Shape", "Size"):
        shape = node.inputs[0].shape
        if not static(shape):
            return None
        part = shape[node.attrs.get("start", 0) : node.attrs.get("end")]
        return np.array(part if node.op == "Shape" else math.prod(shape), np.int64)
    if activations(node) or _elements(node) > MAX_FOLDED:
        return None
    feeds: dict[str, Any] = {tensor.name: tensor.values for tensor in node.inputs if not tensor.is_empty()}
    exporter = gs.exporters.onnx_exporter.OnnxExporter
    single = onnx.helper.make_graph([exporter.export_node(node)], "fold", [], [])
    single.input.extend(onnx.helper.make_empty_tensor_value_info(name) for name in feeds)
    single.output.append(onnx.helper.make_empty_tensor_value_info(node.outputs[0].name))
    model = onnx.helper.make_model(single, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        (values,) = onnx.reference.ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # whatever the evaluator makes of an odd constant: the node is left as it is
        return None
    return np.asarray(values)


def _elements(node: gs.Node) -> int:
    """Elements of the node's result, where its inputs' values can make that larger than they are."""
    if node.op in ("ConstantOfShape", "Expand"):
        return math.prod(map(int, node.inputs[-1].values.ravel()))
    if node.op == "Range":
        start, limit, delta = (tensor.values.item() for tensor in node.inputs)
        return int((limit - start) / delta) if delta else 0
    return 0


def resolve_auto_pad(graph: gs.Graph) -> None:
    """auto_pad becomes the pads it stands for, where they do not depend on a size known at run time only."""
    for node in graph.nodes:
        mode = node.attrs.get("auto_pad", "NOTSET")
        if node.op not in ("Conv", "MaxPool", "AveragePool") or mode == "NOTSET":
            node.attrs.pop("auto_pad", None)
            continue
        x, kernel = node.inputs[0], node.inputs[1].shape[2:] if node.op == "Conv" else None
        if x.shape is None:
            continue
        window = Window.of({name: value for name, value in node.attrs.items() if name != "pads"}, kernel)
        # With stride 1 the pads of SAME are the same for every size.
        size = [1 if s == 1 else n for n, s in zip(x.shape[2:], window.strides, strict=True)]
        if mode == "VALID":
            node.attrs["pads"] = [0] * 2 * len(window.kernel)
        elif static(size):
            _check_same(node, window, size)
            node.attrs["pads"] = explicit_pads(mode, window, size)
            node.attrs.pop("ceil_mode", None)  # SAME alone decides the number of windows
        else:
            continue
        node.attrs.pop("auto_pad")


def _check_same(node: gs.Node, window: Window, size: list[int]) -> None:
    """Refuse what onnxruntime computes otherwise than ONNX says: made explicit, the outputs would change."""
    what, remedy = f"cannot take node '{node.name}' ({node.op})", "export it with explicit pads"
    if max(window.dilations) > 1:
        raise RevgraphError(what, "onnxruntime ignores or refuses dilations beside auto_pad SAME", remedy)
    if min(window.same_padding(size)) < -1:
        why = "onnxruntime shifts pixels where auto_pad SAME has strides beyond the kernel"
        raise RevgraphError(what, why, remedy)


GRAPH_PASSES: tuple[Callable[[gs.Graph], object], ...] = (fold_constants, rename_reserved, resolve_auto_pad)
