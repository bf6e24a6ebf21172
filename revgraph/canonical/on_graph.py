"""Passes on the onnx-graphsurgeon graph."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.reference

from revgraph.errors import RevgraphError
from revgraph.graph import computed_inputs, gs, producer, sort, static, tidy
from revgraph.names import first_free
from revgraph.weights import MIN_ELEMENTS
from revgraph.window import Window, explicit_pads

RESERVED = ("p", "x_hat")
MAX_FOLDED = 2**28
"""Most elements of a folded constant, and most that folding adds to what is there: 1 GiB of float32."""


def rename_reserved(graph: gs.Graph) -> None:
    """Inner tensors called `p` or `x_hat` give way; inputs and outputs so called cannot."""
    tensors = graph.tensors()
    for name in RESERVED:
        tensor = tensors.get(name)
        if any(t is tensor for t in (*graph.inputs, *graph.outputs)):
            what = f"cannot compile a model with an input or output called '{name}'"
            raise RevgraphError(what, "the reversed file uses that name", "rename it")
        if tensor is not None:
            tensor.name = first_free(name, tensors)


# fmt: off
FOLDABLE = frozenset({
    "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Concat", "Constant", "ConstantOfShape",
    "DequantizeLinear", "Div", "Equal", "Expand", "Flatten", "Floor", "Gather", "Greater", "GreaterOrEqual",
    "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Range",
    "Reciprocal", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "ScatterND", "Shape",
    "Size", "Slice", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where",
})
# fmt: on


def fold_constants(graph: gs.Graph, most: int = MAX_FOLDED) -> bool:
    """Nodes of constants alone become constants of at most `most` elements; so does a static Shape.

    Returns:
        Whether there were any.
    """
    folded, room = False, MAX_FOLDED
    for node in sort(graph).nodes:
        output = node.outputs[0] if len(node.outputs) == 1 else None
        if node.op not in FOLDABLE or output is None or any(output is tensor for tensor in graph.outputs):
            continue
        held = {tensor.name: tensor for tensor in node.inputs if isinstance(tensor, gs.Constant)}
        read = sum(int(tensor.values.size) for tensor in held.values())
        if (values := _fold(node, graph.opset, min(most, read + room))) is not None:
            room -= max(values.size - read, 0) if node.op != "Constant" else 0
            node.outputs.clear()
            output.to_constant(values)
            folded = True
    return folded


def fold_small(graph: gs.Graph) -> bool:
    """The same for sizes and the like, before weights are there."""
    return fold_constants(graph, MIN_ELEMENTS)


def _fold(node: gs.Node, opset: int, most: int) -> np.ndarray | None:
    if node.op in ("Shape", "Size"):
        shape = node.inputs[0].shape
        if not static(shape):
            return None
        part = shape[node.attrs.get("start", 0) : node.attrs.get("end")]
        return np.array(part if node.op == "Shape" else math.prod(shape), np.int64)
    if computed_inputs(node) or _elements(node) > most:
        return None
    feeds: dict[str, Any] = {tensor.name: tensor.values for tensor in node.inputs if not tensor.is_empty()}
    exporter = gs.exporters.onnx_exporter.OnnxExporter
    single = onnx.helper.make_graph([exporter.export_node(node)], "fold", [], [])
    single.input.extend(onnx.helper.make_empty_tensor_value_info(name) for name in feeds)
    single.output.append(onnx.helper.make_empty_tensor_value_info(node.outputs[0].name))
    model = onnx.helper.make_model(single, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):  # what is not finite then is told with its reader's name
            (values,) = onnx.reference.ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # whatever the evaluator makes of an odd constant: the node is left as it is
        return None
    return np.asarray(values, order="C")


def _elements(node: gs.Node) -> int:
    """About how many elements the node's result has: a few bytes can ask for terabytes."""
    if node.op == "ConstantOfShape":
        return math.prod(map(int, node.inputs[0].values.ravel()))
    if node.op == "Tile":
        return math.prod(map(int, node.inputs[1].values.ravel())) * int(node.inputs[0].values.size)
    if node.op == "Range":
        start, limit, delta = (tensor.values.item() for tensor in node.inputs)
        count = (limit - start) / delta if delta else math.inf
        return int(count) if math.isfinite(count) else MAX_FOLDED + 1
    shapes = [tensor.values.shape for tensor in node.inputs if not tensor.is_empty()]
    if node.op == "Concat":
        return sum(map(math.prod, shapes))
    if node.op == "Expand":
        shapes[1] = tuple(map(int, node.inputs[1].values.ravel()))
    if node.op == "Gather":
        rows = shapes[0][node.attrs.get("axis", 0)]
        return int(math.prod(shapes[0]) // max(rows, 1) * math.prod(shapes[1]))
    return math.prod(
        max(dims) for dims in itertools.zip_longest(*(shape[::-1] for shape in shapes), fillvalue=1)
    )


def cast_like(graph: gs.Graph) -> bool:
    """CastLike becomes the Cast that it stands for: what it takes the type from gives it no values."""
    nodes = [node for node in graph.nodes if node.op == "CastLike" and node.outputs[0].dtype is not None]
    for node in nodes:
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(node.outputs[0].dtype))
        node.op, node.attrs, node.inputs = "Cast", {"to": kind}, node.inputs[:1]
    return bool(nodes)


def sequence_to_slices(graph: gs.Graph) -> bool:
    """SequenceAt of SplitToSequence, as chunk and unbind are exported, becomes a Slice."""
    picks = [node for node in graph.nodes if node.op == "SequenceAt"]
    return bool([pick for pick in picks if _pick_to_slice(pick, producer(pick.inputs[0]))])


def _pick_to_slice(pick: gs.Node, split: gs.Node | None) -> bool:
    if split is None or split.op != "SplitToSequence" or not isinstance(pick.inputs[1], gs.Constant):
        return False
    position = pick.inputs[1].values.item()
    if position < 0:
        return False
    x, sizes, axis = split.inputs[0], split.inputs[1:], split.attrs.get("axis", 0)
    if not sizes and not split.attrs.get("keepdims", 1):
        pick.op, pick.attrs, pick.inputs = "Gather", {"axis": axis}, [x, pick.inputs[1]]
        return True
    if sizes and not isinstance(sizes[0], gs.Constant):
        return False
    size = sizes[0].values if sizes else np.array(1)
    end = int(size * (position + 1) if size.ndim == 0 else size[: position + 1].sum())
    bounds = {"start": end - int(size if size.ndim == 0 else size[position]), "end": end, "axis": axis}
    pick.op, pick.inputs = "Slice", [x, *_constants(pick.name, bounds)]
    return True


def _constants(name: str, numbers: Mapping[str, int]) -> list[gs.Constant]:
    """One-element inputs, as Slice wants them."""
    return [gs.Constant(f"{name}/{kind}", np.array([n])) for kind, n in numbers.items()]


def split_to_slices(graph: gs.Graph) -> None:
    """Each output of a Split becomes a Slice of its own, so that every layer has one output."""
    for node in [node for node in graph.nodes if node.op == "Split"]:
        x, axis = node.inputs[0], node.attrs.get("axis", 0)
        if x.shape is None or any(len(y.shape or ()) != len(x.shape) for y in node.outputs):
            continue
        sizes: list[Any] = [y.shape[axis] for y in node.outputs]
        if not static(sizes):
            continue
        ends = np.cumsum(sizes).tolist()
        for i, (y, size, end) in enumerate(zip(list(node.outputs), sizes, ends, strict=True)):
            constants = _constants(y.name, {"start": end - size, "end": end, "axis": axis})
            node.outputs.remove(y)
            name = node.name if i == 0 else f"{node.name}_{i}"
            graph.nodes.append(gs.Node("Slice", name, inputs=[x, *constants], outputs=[y]))
    tidy(graph)


def global_max_pool(graph: gs.Graph) -> None:
    """GlobalMaxPool becomes the MaxPool whose window is the plane."""
    for node in graph.nodes:
        shape = node.inputs[0].shape if node.op == "GlobalMaxPool" else None
        if shape is not None and static(shape[2:]):
            node.op, node.attrs = "MaxPool", {"kernel_shape": list(shape[2:])}


def resolve_auto_pad(graph: gs.Graph) -> None:
    """auto_pad becomes the pads it stands for, where they do not depend on a size known at run time only."""
    for node in graph.nodes:
        mode = node.attrs.get("auto_pad", "NOTSET")
        if mode == "NOTSET":
            node.attrs.pop("auto_pad", None)
            continue
        if node.op not in ("Conv", "MaxPool", "AveragePool"):  # ConvTranspose crops by it
            continue
        x, kernel = node.inputs[0], (node.inputs[1].shape or [None])[2:] if node.op == "Conv" else None
        if x.shape is None or (kernel is not None and not static(kernel)):
            continue
        window = Window.of({name: value for name, value in node.attrs.items() if name != "pads"}, kernel)
        # With stride 1 the pads of SAME are the same for every size.
        size = [1 if s == 1 else n for n, s in zip(x.shape[2:], window.strides, strict=True)]
        if mode == "VALID":
            node.attrs["pads"] = [0] * 2 * len(window.kernel)
        else:
            _check_same(node, window, size)
            if not static(size):
                continue
            node.attrs["pads"] = explicit_pads(mode, window, size)
        node.attrs.pop("auto_pad")


def _check_same(node: gs.Node, window: Window, size: list[int | str | None]) -> None:
    """Refuse what onnxruntime computes otherwise than ONNX says: made explicit, the outputs would change."""
    what, remedy = f"cannot take node '{node.name}' ({node.op})", "export it with explicit pads"
    if max(window.dilations) > 1:
        raise RevgraphError(what, "onnxruntime ignores or refuses dilations beside auto_pad SAME", remedy)
    # Of the sizes that a free one may have, a multiple of the stride needs the least padding.
    worst = [s if not isinstance(n, int) else n for n, s in zip(size, window.strides, strict=True)]
    if min(window.same_padding(worst)) < -1:
        why = "onnxruntime shifts pixels where auto_pad SAME has strides beyond the kernel"
        raise RevgraphError(what, why, remedy)
