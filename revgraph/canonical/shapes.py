"""Shapes: what ONNX's inference tells, kept to what onnxruntime does."""

import math

import onnx
import onnx.shape_inference

from revgraph.canonical.on_model import translated
from revgraph.errors import RevgraphError
from revgraph.window import Window

MAX_LIST = 2**20
"""Most numbers in a list of sizes; inference takes some hundred bytes for each, wanted or not."""
LEAST_LIST = 8


def settle_ceil_mode(model: onnx.ModelProto) -> onnx.ModelProto:
    """Pools whose last window would start in the padding have that window in ONNX's inference alone.

    onnxruntime drops it; without ceil_mode, or with less padding, all agree.
    """
    del model.graph.value_info[:]  # what an exporter wrote there may be wrong
    pools = _ceil_pools(model)
    if pools:
        for value in model.graph.output:  # and so may what it declared
            for dim in value.type.tensor_type.shape.dim[1:]:
                dim.Clear()
    for pool in pools:
        if any(a.name == "auto_pad" and a.s.startswith(b"SAME") for a in pool.attribute):
            # SAME alone decides the number of windows.
            pool.attribute.remove(next(a for a in pool.attribute if a.name == "ceil_mode"))
    for _ in pools:
        inferred = _inferred(model)
        values = (*inferred.graph.value_info, *inferred.graph.input)
        shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
        if not any(_drop_windows(node, shapes.get(node.input[0], [])) for node in _ceil_pools(model)):
            break
    return model


def _ceil_pools(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    pools = [node for node in model.graph.node if node.op_type in ("MaxPool", "AveragePool")]
    return [pool for pool in pools if any(a.name == "ceil_mode" and a.i for a in pool.attribute)]


def _drop_windows(pool: onnx.NodeProto, shape: list[int]) -> bool:
    """Take away the windows that start in the padding; whether there were any. `shape` has 0 for unknown."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in pool.attribute}
    size = shape[2:]
    if not size or not all(size):
        return False
    window = Window.of({name: value for name, value in attributes.items() if name != "auto_pad"})
    if len(window.kernel) != len(size):
        return False  # which is refused where the other axes are checked
    excess = window.excess(size)
    if not any(excess):
        return False
    if excess == window.remainder(size):
        attributes["ceil_mode"] = 0
    else:
        attributes["pads"] = [*window.begin, *(pad - n for pad, n in zip(window.end, excess, strict=True))]
    if min(attributes.get("pads", [0])) < 0:
        what = f"cannot take node '{pool.name}' ({pool.op_type})"
        why = "with ceil_mode its last window would start beyond the input"
        raise RevgraphError(what, why, "export it without ceil_mode")
    del pool.attribute[:]
    pool.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in attributes.items())
    return True


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write the shape of every tensor that ONNX can tell."""
    return _inferred(model, check_type=True, strict_mode=True)


def _longest_list(model: onnx.ModelProto) -> int:
    """At least as many numbers as inference would follow in one tensor: Concat adds up, all else keeps."""
    inputs = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    shapes = {name: [dim.dim_value for dim in dims] for name, dims in inputs.items()}
    shapes |= {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    lengths = {name: math.prod(dims) for name, dims in shapes.items() if len(dims) < 2}
    for node in model.graph.node:
        read = [lengths.get(name, LEAST_LIST) for name in node.input] or [LEAST_LIST]
        lengths |= dict.fromkeys(node.output, sum(read) if node.op_type == "Concat" else max(read))
    return max(lengths.values(), default=0)


def _inferred(model: onnx.ModelProto, **how: bool) -> onnx.ModelProto:
    """ONNX gives up at a GroupNormalization, so during inference it is called an InstanceNormalization."""
    groups = [i for i, node in enumerate(model.graph.node) if node.op_type == "GroupNormalization"]
    try:
        for i in groups:
            model.graph.node[i].op_type = "InstanceNormalization"
        with translated():
            inferred = onnx.shape_inference.infer_shapes(
                model, data_prop=_longest_list(model) <= MAX_LIST, **how
            )
    finally:
        for i in groups:
            model.graph.node[i].op_type = "GroupNormalization"
    for i in groups:
        inferred.graph.node[i].op_type = "GroupNormalization"
    return inferred
