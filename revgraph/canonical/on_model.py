"""Passes on the model as onnx reads it."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

import onnx
import onnx.inliner
import onnx.version_converter

from revgraph.errors import RevgraphError, invalid_model
from revgraph.graph import tensor_names
from revgraph.names import next_free
from revgraph.op import TAPS

OPSETS = (17, 21)
"""Lowest and highest opset of the graphs: 17 has every operator needed, and no CUDA kernel lags behind 21."""

IRS = (8, 10)

MAX_NODES = 2**15
"""Most nodes of a model, its functions inlined, and most initializers."""

DEADLY = ("RegexFullMatch",)
"""Operators at which onnx reads the type of an input that has none: the only one, of all that there are."""

MAX_INLINED = 2**28
"""Most bytes that inlining functions may write."""

MAX_NAME = 2**12
"""Most letters of a name; new ones are made of it again and again."""

MAX_DEPTH = 32
"""Most branches and loops within each other; protobuf reads 33 from a file."""


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
    yield from _nested(model.graph.node)
    for function in model.functions:
        yield from _nested(function.node)


def _nested(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """These nodes and those of their subgraphs.

    Raises:
        RevgraphError: They lie too deep.
    """
    waiting = [(node, 0) for node in nodes]
    while waiting:
        node, depth = waiting.pop()
        yield node
        if depth > MAX_DEPTH:
            why = f"branches and loops lie within each other, more than {MAX_DEPTH} deep"
            raise RevgraphError("cannot take this model", why, "simplify it before")
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting += ((inner, depth + 1) for inner in graph.node)


def check(model: onnx.ModelProto) -> onnx.ModelProto:
    """Refuse what no pass could mend, naming it before onnx.checker would in its own words."""
    versions = {entry.version for entry in model.opset_import if not entry.domain}
    version = " and ".join(map(str, sorted(versions))) if len(versions) > 1 else (*versions, "not given")[0]
    newest = onnx.defs.onnx_opset_version()
    if not isinstance(version, int) or not 7 <= version <= newest:
        remedy = f"export it at an opset from 7 to {newest}"
        raise RevgraphError("cannot read this model", f"its opset is {version}", remedy)
    _check_size(model)
    functions = {(function.domain, function.name) for function in model.functions}
    for node in _all_nodes(model):
        if longest := max((name for name in (node.name, *node.output) if len(name) > MAX_NAME), default=""):
            why = f"a name in it has {len(longest)} letters"
            raise RevgraphError("cannot take this model", why, f"names of at most {MAX_NAME}")
        if (node.domain, node.op_type) not in functions:
            _check_operator(node)
    with translated():
        onnx.checker.check_model(model)
    return model


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """What onnx's C++ raises, which has no common kind, says that the model is not valid."""
    try:
        yield
    except Exception as error:
        raise invalid_model(str(error) or type(error).__name__) from error


def _check_size(model: onnx.ModelProto) -> None:
    """Refuse what would be too much with its functions inlined: each may call the one before it twice."""
    nodes = _inlined(model, lambda node: 1)
    inlined = _inlined(model, onnx.NodeProto.ByteSize) if model.functions else 0
    initializers = len(model.graph.initializer)
    if nodes > MAX_NODES or inlined > MAX_INLINED or initializers > MAX_NODES:
        why = f"it has {nodes:.6g} nodes and {initializers} initializers"
        if model.functions:
            why += f", {inlined:.3g} bytes once its functions are inlined"
        raise RevgraphError("cannot take this model", why, f"one of at most {MAX_NODES} of each")


def _inlined(model: onnx.ModelProto, weigh: Callable[[onnx.NodeProto], int]) -> float:
    """What all nodes weigh once functions are inlined."""
    functions = {(function.domain, function.name): function for function in model.functions}
    called = {
        key: [(node.domain, node.op_type) for node in _nested(function.node)]
        for key, function in functions.items()
    }
    weights = dict[tuple[str, str], float]()

    def total(nodes: Iterable[onnx.NodeProto]) -> float:
        return sum(weights.get((node.domain, node.op_type)) or weigh(node) for node in _nested(nodes))

    try:
        for key in TopologicalSorter(called).static_order():
            if key in functions:
                weights[key] = float(total(functions[key].node))
    except CycleError as error:
        raise invalid_model(f"its function '{error.args[1][0][1]}' calls itself") from error
    return total(model.graph.node)


def _check_operator(node: onnx.NodeProto) -> None:
    remedy = "export with standard operators only"
    name = node.name or next(iter(node.output), "")
    if node.domain:
        what = f"cannot take node '{name}' ({node.domain}.{node.op_type})"
        raise RevgraphError(what, f"'{node.domain}' is not ONNX's own domain", remedy)
    if node.op_type in DEADLY:
        why = "onnx's shape inference may end the process at it"
        raise RevgraphError(f"cannot take node '{name}' ({node.op_type})", why, remedy)
    if not onnx.defs.has(node.op_type):
        raise RevgraphError(
            f"cannot take node '{name}' ({node.op_type})", "ONNX has no such operator", remedy
        )


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Model-local functions become the nodes they stand for."""
    with translated():
        inlined = onnx.inliner.inline_local_functions(model) if model.functions else model
    own = [entry for entry in inlined.opset_import if not entry.domain]
    del inlined.opset_import[:]
    inlined.opset_import.extend(own)
    return inlined


def separate_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Initializers listed as inputs too, as before IR 4, are no inputs; IR rises to what allows that.

    An output that is an input has the input's type, whatever else it declares.
    """
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    types = {value.name: value.type for value in inputs}
    for value in model.graph.output:
        if value.name in types:
            value.type.CopyFrom(types[value.name])
    model.ir_version = min(max(model.ir_version, IRS[0]), IRS[1])
    return model


def drop_empty_lists(model: onnx.ModelProto) -> onnx.ModelProto:
    """Attributes that are lists of nothing say as much as none, and onnx-graphsurgeon cannot write them."""
    for node in _all_nodes(model):
        for attribute in [a for a in node.attribute if a.type in LISTS and not _listed(a)]:
            node.attribute.remove(attribute)
            if node.op_type == "Constant":
                kind = onnx.TensorProto.FLOAT if attribute.name == "value_floats" else onnx.TensorProto.INT64
                nothing = onnx.TensorProto(data_type=kind, dims=[0])
                node.attribute.append(onnx.helper.make_attribute("value", nothing))
    return model


LISTS = (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS, onnx.AttributeProto.STRINGS)


def _listed(attribute: onnx.AttributeProto) -> bool:
    return bool(attribute.ints or attribute.floats or attribute.strings)


def name_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Unnamed nodes are named after their first output; no name repeats, and none hides a tap's."""
    tensors = set(tensor_names(model))
    taken = {name.removesuffix(f"/{tap}") for tap in TAPS for name in tensors if name.endswith(f"/{tap}")}
    tried = dict[str, int]()
    for node in model.graph.node:
        stem = node.name or next(filter(None, node.output), node.op_type)
        node.name = next_free(stem, taken, tried)
        taken.add(node.name)
    return model


def convert_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Raise or lower the opset into OPSETS."""
    version = next(entry.version for entry in model.opset_import if not entry.domain)
    target = min(max(version, OPSETS[0]), OPSETS[1])
    if target == version:
        return model
    try:
        converted = onnx.version_converter.convert_version(model, target)
    except Exception as error:  # of its C++, which raises what has no common kind
        remedy = f"export it at an opset from {OPSETS[0]} to {OPSETS[1]}"
        what = f"cannot convert this model from opset {version} to {target}"
        raise RevgraphError(what, str(error), remedy) from error
    return _keep_coordinates(converted, version)


def _keep_coordinates(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """Before opset 11 a linear Resize was asymmetric; converted without saying so, it becomes half_pixel."""
    for node in model.graph.node if version < 11 else ():
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Resize" and "mode" in attributes and attributes["mode"].s == b"linear":
            name = "coordinate_transformation_mode"
            if name in attributes:
                node.attribute.remove(attributes[name])
            node.attribute.append(onnx.helper.make_attribute(name, "asymmetric"))
    return model
