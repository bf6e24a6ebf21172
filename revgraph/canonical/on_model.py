"""Passes on the model as onnx reads it."""

from collections.abc import Iterator

import onnx
import onnx.inliner
import onnx.version_converter

from revgraph.errors import RevgraphError
from revgraph.graph import tensor_names
from revgraph.names import first_free
from revgraph.op import TAPS

OPSETS = (17, 21)
"""Lowest and highest opset of the graphs: 17 has every operator needed, and no CUDA kernel lags behind 21."""

IRS = (8, 10)


def invalid(why: str) -> RevgraphError:
    """The error for a model that breaks ONNX's own rules."""
    return RevgraphError("this model is not valid ONNX", why, "check it with onnx.checker.check_model")


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
        raise invalid(str(error)) from error
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
    inlined = onnx.inliner.inline_local_functions(model) if model.functions else model
    own = [entry for entry in inlined.opset_import if not entry.domain]
    del inlined.opset_import[:]
    inlined.opset_import.extend(own)
    return inlined


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
    tensors = set(tensor_names(model))
    taken = {name.removesuffix(f"/{tap}") for tap in TAPS for name in tensors if name.endswith(f"/{tap}")}
    for node in model.graph.node:
        stem = node.name or next(filter(None, node.output), node.op_type)
        node.name = first_free(stem, taken)
        taken.add(node.name)
    return model


def convert_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Raise or lower the opset into OPSETS."""
    version = next(entry.version for entry in model.opset_import if not entry.domain)
    target = min(max(version, OPSETS[0]), OPSETS[1])
    if target == version:
        return model
    try:
        return _keep_coordinates(onnx.version_converter.convert_version(model, target), version)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        remedy = f"export it at an opset from {OPSETS[0]} to {OPSETS[1]}"
        what = f"cannot convert this model from opset {version} to {target}"
        raise RevgraphError(what, str(error), remedy) from error


def _keep_coordinates(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """Before opset 11 a linear Resize was asymmetric; converted without saying so, it becomes half_pixel."""
    for node in model.graph.node if version < 11 else ():
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Resize" and attributes["mode"].s == b"linear":
            name = "coordinate_transformation_mode"
            if name in attributes:
                node.attribute.remove(attributes[name])
            node.attribute.append(onnx.helper.make_attribute(name, "asymmetric"))
    return model
