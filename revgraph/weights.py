"""Weights travel beside the model, not through it: onnx's passes copy a model several times over."""

import math

import onnx

from revgraph.graph import gs

MIN_ELEMENTS = 1024
"""Smaller initializers stay: among them are the shapes and axes that inference reads."""

Weights = dict[str, onnx.TensorProto]


def detach(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Weights]:
    """A copy of the model in which every large initializer is an input, and those initializers by name.

    The tensors are the given model's own, so their bytes are not copied.
    """
    light, graph = onnx.ModelProto(), onnx.GraphProto()
    _copy_fields(model, light, leaving="graph")
    _copy_fields(model.graph, graph, leaving="initializer")
    weights: Weights = {}
    inputs = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) < MIN_ELEMENTS or not _whole(tensor):
            graph.initializer.append(tensor)
            continue
        weights[tensor.name] = tensor
        if tensor.name not in inputs:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    light.graph.CopyFrom(graph)
    return light, weights


def attach(graph: gs.Graph, weights: Weights) -> None:
    """Turn the inputs that `detach` made back into the constants they stand for."""
    graph.inputs = [tensor for tensor in graph.inputs if tensor.name not in weights]
    for tensor in graph.tensors().values():
        if tensor.name in weights:
            tensor.to_constant(onnx.numpy_helper.to_array(weights[tensor.name]))


def _whole(tensor: onnx.TensorProto) -> bool:
    """Whether the bytes are those that shape and type ask for; others are left for onnx.checker to refuse."""
    try:
        size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError):
        return False
    return len(tensor.raw_data) == size * math.prod(tensor.dims)


def _copy_fields(source: onnx.ModelProto | onnx.GraphProto, result: object, leaving: str) -> None:
    for field, value in source.ListFields():
        if field.name == leaving:
            continue
        if hasattr(value, "extend"):
            getattr(result, field.name).extend(value)
        else:
            setattr(result, field.name, value)
