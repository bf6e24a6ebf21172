"""Passes on the onnx-graphsurgeon graph."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.reference

from revgraph.errors import RevgraphError
from revgraph.graph import Tensor, activations, gs, static
from revgraph.window import Window, explicit_pads

RESERVED = ("p", "x_hat")
MAX_FOLDED = 2**28
"""Most elements that a folded constant may have: 1 GiB of float32."""


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
    "Add", "Cast", "Concat", "Constant", "ConstantOfShape", "DequantizeLinear", "Div", "Expand", "Gather",
    "Identity", "Mul", "Range", "Reshape", "Shape", "Size", "Slice", "Squeeze", "Sub", "Transpose",
    "Unsqueeze",
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


def split_to_slices(graph: gs.Graph) -> None:
    """Each output of a Split becomes a Slice of its own, so that every layer has one output."""
    for node in [node for node in graph.nodes if node.op == "Split"]:
        x, axis = node.inputs[0], node.attrs.get("axis", 0)
        sizes: list[Any] = [y.shape[axis] if y.shape else None for y in node.outputs]
        if x.shape is None or not static(sizes):
            continue
        ends = np.cumsum(sizes).tolist()
        for i, (y, size, end) in enumerate(zip(list(node.outputs), sizes, ends, strict=True)):
            bounds = {"start": end - size, "end": end, "axis": axis}
            constants = [gs.Constant(f"{y.name}/{kind}", np.array([n])) for kind, n in bounds.items()]
            node.outputs.remove(y)
            name = node.name if i == 0 else f"{node.name}_{i}"
            graph.nodes.append(gs.Node("Slice", name, inputs=[x, *constants], outputs=[y]))
    graph.cleanup().toposort()


def global_max_pool(graph: gs.Graph) -> None:
    """GlobalMaxPool becomes the MaxPool whose window is the plane."""
    for node in graph.nodes:
        if node.op == "GlobalMaxPool" and static((node.inputs[0].shape or [None])[2:]):
            node.op, node.attrs = "MaxPool", {"kernel_shape": list(node.inputs[0].shape[2:])}


def resolve_auto_pad(graph: gs.Graph) -> None:
    """auto_pad becomes the pads it stands for, where they do not depend on a size known at run time only."""
    for node in graph.nodes:
        mode = node.attrs.get("auto_pad", "NOTSET")
        if node.op not in ("Conv", "MaxPool", "AveragePool") or mode == "NOTSET":
            node.attrs.pop("auto_pad", None)
            continue
        x, kernel = node.inputs[0], (node.inputs[1].shape or [None])[2:] if node.op == "Conv" else None
        if x.shape is None or (kernel is not None and not static(kernel)):
            continue
        window = Window.of({name: value for name, value in node.attrs.items() if name != "pads"}, kernel)
        # With stride 1 the pads of SAME are the same for every size.
        size = [1 if s == 1 else n for n, s in zip(x.shape[2:], window.strides, strict=True)]
        if mode == "VALID":
            node.attrs["pads"] = [0] * 2 * len(window.kernel)
        elif static(size):
            _check_same(node, window, size)
            node.attrs["pads"] = explicit_pads(mode, window, size)
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


# ---------------------------------------------------------------- arithmetic of shapes

Dims = list[int | str | None]


def fold_shapes(graph: gs.Graph) -> bool:
    """Reshape to a computed shape becomes Reshape to a constant one, where only the batch is not known.

    Exporters write Shape, Gather and Concat for "as many images as there are, and the rest flattened".

    Returns:
        Whether there was one; then more shapes can be inferred.
    """
    known: dict[str, Dims] = {}
    folded = False
    for node in graph.nodes:
        if node.outputs and (dims := _dims(node, known)) is not None:
            known[node.outputs[0].name] = dims
        if (
            node.outputs
            and node.op == "Reshape"
            and isinstance(node.inputs[1], gs.Variable)
            and node.inputs[1].name in known
        ):
            target = _constant_target(known[node.inputs[1].name], node.inputs[0].shape)
            if target is not None:
                node.inputs[1] = gs.Constant(f"{node.inputs[1].name}/{node.name}", np.array(target, np.int64))
                node.attrs.pop("allowzero", None)  # whose zeros would be no copies
                folded = True
    return folded


def _dims(node: gs.Node, known: dict[str, Dims]) -> Dims | None:
    """The node's result as numbers and names of dimensions; a scalar is a list of one."""
    if node.op == "Shape":
        shape = node.inputs[0].shape
        return None if shape is None else list(shape)[node.attrs.get("start", 0) : node.attrs.get("end")]
    if node.op == "Constant":
        return _values(node.attrs.get("value"), known)
    parts = [_values(tensor, known) for tensor in node.inputs]
    if node.op not in _MOVES or any(part is None for part in parts):
        return None
    return _MOVES[node.op](*parts)


def _values(tensor: Tensor | None, known: dict[str, Dims]) -> Dims | None:
    if not isinstance(tensor, gs.Constant):
        return None if tensor is None else known.get(tensor.name)
    small = tensor.values.dtype == np.int64 and tensor.values.ndim <= 1
    return tensor.values.ravel().tolist() if small else None


_MOVES: dict[str, Callable[..., Dims | None]] = {
    "Cast": lambda dims: dims,
    "Concat": lambda *parts: list(itertools.chain(*parts)),
    "Gather": lambda dims, at: (
        [dims[i] for i in at] if all(-len(dims) <= i < len(dims) for i in at) else None
    ),
    "Identity": lambda dims: dims,
    "Reshape": lambda dims, shape: dims,
    "Slice": lambda dims, start, end, axes=(0,), step=(1,): dims[start[0] : end[0] : step[0]],
    "Squeeze": lambda dims, axes=(0,): dims,
    "Unsqueeze": lambda dims, axes: dims,
}


def _constant_target(dims: Dims, x: list[int | str | None] | None) -> list[int] | None:
    """The same Reshape target without names: 0 copies a dimension of x, and one other may be -1."""
    copied = [
        0 if isinstance(n, str) and x is not None and n in x[i : i + 1] else n for i, n in enumerate(dims)
    ]
    target = [n if isinstance(n, int) else -1 for n in copied]
    return target if target.count(-1) <= 1 else None
