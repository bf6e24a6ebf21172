"""Contradictions in a model that ONNX's own checker and inference let through."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import onnx

from revgraph.errors import RevgraphError, invalid_model
from revgraph.graph import Shape, gs, static

LISTS = {"kernel_shape": 1, "strides": 1, "dilations": 1, "pads": 2, "output_padding": 1, "output_shape": 1}
"""Attributes of windows, and how many numbers they have for each spatial axis."""

WINDOWS = ("AveragePool", "Conv", "ConvTranspose", "LpPool", "MaxPool")

POSITIVE = ("blocksize", "dilations", "group", "kernel_shape", "size", "strides")

# fmt: off
BOOLEAN = frozenset({
    "allowzero", "antialias", "ceil_mode", "count_include_pad", "exclude_outside", "fmod", "keepdims",
    "noop_with_empty_axes", "training_mode", "transA", "transB",
})
# fmt: on

WORDS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("", "auto_pad"): ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"),
    ("DepthToSpace", "mode"): ("DCR", "CRD"),
    ("Gelu", "approximate"): ("none", "tanh"),
    ("Pad", "mode"): ("constant", "edge", "reflect", "wrap"),
    ("Resize", "mode"): ("nearest", "linear", "cubic"),
    ("Resize", "nearest_mode"): ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    ("Upsample", "mode"): ("nearest", "linear"),
}
"""What an attribute may say, of an operator or of any."""

VECTORS = {"Expand": (1,), "Pad": (1,), "Reshape": (1,), "Resize": (2, 3), "Slice": (1, 2), "Tile": (1,)}
"""Inputs that are lists of numbers."""

MAX_ELEMENTS = 2**52
"""Most elements of a tensor; beyond, products of sizes overflow."""


# ---------------------------------------------------------------- what a node says of itself


def check_attributes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Refuse values that no operator has.

    Raises:
        RevgraphError: There is one.
    """
    for node in model.graph.node:
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}
        for name, value in values.items():
            if not _may_be(node.op_type, name, value):
                raise _wrong(node.name, node.op_type, f"{name} {value!r}")
        if node.op_type == "Conv" and "pads" in values and values.get("auto_pad", b"NOTSET") != b"NOTSET":
            raise _wrong(node.name, node.op_type, "pads and auto_pad")  # so says onnxruntime too
        if node.op_type in WINDOWS:
            axes = {
                len(values[name]) / per for name, per in LISTS.items() if isinstance(values.get(name), list)
            }
            if len(axes) > 1:
                raise _wrong(node.name, node.op_type, "lists for different numbers of axes")
    return model


def _may_be(operator: str, name: str, value: Any) -> bool:
    if name in POSITIVE and isinstance(value, (int, list)):
        return min(value if isinstance(value, list) else [value], default=1) > 0
    if name in BOOLEAN:
        return value in (0, 1)
    words = WORDS.get((operator, name)) or WORDS.get(("", name))
    return words is None or not isinstance(value, bytes) or value in [word.encode() for word in words]


def _wrong(name: str, operator: str, why: str) -> RevgraphError:
    return invalid_model(f"node '{name}' ({operator}) has {why}")


# ---------------------------------------------------------------- and what its tensors do


def check_tensors(graph: gs.Graph) -> None:
    """Refuse sizes that nothing can have, and nodes that are for another number of axes than their input has.

    Raises:
        RevgraphError: There are such.
    """
    for tensor in graph.tensors().values():
        numbers = [n for n in tensor.shape or () if isinstance(n, int)]
        if min(numbers, default=0) < 0 or math.prod(filter(None, numbers)) > MAX_ELEMENTS:
            raise invalid_model(f"'{tensor.name}' has an absurd shape, {list(tensor.shape)}")
    for node in graph.nodes:
        lists = [node.inputs[i] for i in VECTORS.get(node.op, ()) if i < len(node.inputs)]
        for tensor in lists:
            if not tensor.is_empty() and tensor.shape is not None and len(tensor.shape) != 1:
                raise _wrong(node.name, node.op, f"'{tensor.name}', which is no list but {tensor.shape}")
        x = node.inputs[0].shape if node.inputs else None
        problem = _CHECKS[node.op](node, x) if x is not None and node.op in _CHECKS else None
        if problem:
            raise _wrong(node.name, node.op, f"{problem}, and its input {x}")


def _window(node: gs.Node, x: Shape) -> str | None:
    for name, per_axis in LISTS.items():
        if name in node.attrs and len(node.attrs[name]) != per_axis * (len(x) - 2):
            return f"{name} {list(node.attrs[name])}"
    return None


def _kernel(node: gs.Node, x: Shape) -> str | None:
    weight = node.inputs[1].shape
    return f"weights {weight}" if weight is not None and len(weight) != len(x) else _window(node, x)


def _order(node: gs.Node, x: Shape) -> str | None:
    perm = node.attrs.get("perm", range(len(x)))
    return None if sorted(perm) == list(range(len(x))) else f"perm {perm}"


def _bounds(node: gs.Node, x: Shape) -> str | None:
    for tensor in node.inputs[1:]:
        if not tensor.is_empty() and any(n != 1 for n in tensor.shape or ()):
            return f"a bound '{tensor.name}' of shape {tensor.shape}"
    return None


def _per_channel(node: gs.Node, x: Shape) -> str | None:
    for tensor in node.inputs[1:]:
        numbers = (*x[1:2], *(tensor.shape or ()))
        if tensor.shape is not None and (len(numbers) != 2 or (static(numbers) and len(set(numbers)) > 1)):
            return f"'{tensor.name}' of shape {tensor.shape}"
    return None


def _axis(node: gs.Node, x: Shape) -> str | None:
    axis = node.attrs.get("axis", 0)
    return None if -len(x) <= axis < len(x) else f"axis {axis}"


_CHECKS: Mapping[str, Callable[[gs.Node, Shape], str | None]] = {
    "AveragePool": _window,
    "BatchNormalization": _per_channel,
    "Conv": _kernel,
    "Clip": _bounds,
    "Concat": _axis,
    "ConvTranspose": _kernel,
    "Gather": _axis,
    "InstanceNormalization": _per_channel,
    "LogSoftmax": _axis,
    "LpPool": _window,
    "MaxPool": _window,
    "Softmax": _axis,
    "Split": _axis,
    "Transpose": _order,
}
