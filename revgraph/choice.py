"""The choice of p inside a fused graph, so that a client sends a picture and gets scores and map.

`max` and `class:c` as `neuron` defines them, in standard ONNX operators: one projection per image, which
the graph makes of that image's y alone. What `neuron` refuses is not noticed: y that is not finite.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from revgraph.declared import dtype_of, shape_of
from revgraph.errors import RevgraphError
from revgraph.graph import Builder, Tensor, export, gs, tensor_names
from revgraph.weights import LightModel

CLASS = "class"
"""The name of the input that says which: int64 (N,), one channel of y per image."""

# ----- y (N, C, *spatial) to where p is one: bool, shaped like y -----


def _max(b: Builder, y: Tensor) -> Tensor:
    """The largest of y, per image."""
    return _first_largest(b, y)


def _class(b: Builder, y: Tensor) -> Tensor:
    """Where the class is positive; if nowhere, its largest position."""
    return _positive(b, y, _given(b, y.shape[0]))


def _either(b: Builder, y: Tensor) -> Tensor:
    """As `class` where there is one, as `max` where `class` is empty."""
    given = _given(b, "classes")
    size = b.emit("Shape", given, dtype=np.int64, shape=[1])
    end = b.emit("Max", size, np.array([1]), dtype=np.int64, shape=[1])
    padded = b.emit("Concat", given, np.array([0]), dtype=np.int64, shape=[None], axis=0)
    one = b.emit("Slice", padded, np.array([0]), end, dtype=np.int64, shape=[None])
    empty = b.emit("Equal", size, np.array([0]), dtype=bool, shape=[1])
    some = b.emit("Not", empty, dtype=bool, shape=[1])
    kind = {"dtype": bool, "shape": y.shape}
    strongest = b.emit("And", empty, _max(b, y), **kind)  # no Where: onnxruntime has none of bool
    asked = b.emit("And", some, _positive(b, y, one), **kind)
    return b.emit("Or", strongest, asked, **kind)


def _positive(b: Builder, y: Tensor, given: Tensor) -> Tensor:
    """Where each image's channel is positive, and its largest position: of positive ones it is one."""
    channel = _channel(b, y, given)
    alone = b.emit("Where", channel, y, np.array(-np.inf, y.dtype), dtype=y.dtype, shape=y.shape)
    positive = b.emit("Greater", y, np.zeros((), y.dtype), dtype=bool, shape=y.shape)
    either = b.emit("Or", positive, _first_largest(b, alone), dtype=bool, shape=y.shape)
    return b.emit("And", channel, either, dtype=bool, shape=y.shape)


CHOICES: Mapping[str, Callable[[Builder, Tensor], Tensor]] = {"max": _max, CLASS: _class}

EITHER = "either"
"""A choice for a client of its own picture, who learns the classes with the first run: one server's
requests could not be joined, some with a class and some without."""

# ----- Their parts -----


def _first_largest(b: Builder, y: Tensor) -> Tensor:
    """The first of equal maxima, row-major, per image.

    ArgMax would do, but not everywhere: on CUDA it is young, and one of -inf alone is out of range.
    """
    maxima = b.emit("Equal", y, _largest(b, y), dtype=bool, shape=y.shape)
    countdown = _countdown(b, y, end=len(y.shape))
    left = b.emit("Where", maxima, countdown, np.array(0), dtype=np.int64, shape=y.shape)
    return b.emit("Equal", countdown, _largest(b, left), dtype=bool, shape=y.shape)


def _given(b: Builder, count: int | str | None) -> Tensor:
    """The input `class`."""
    given = gs.Variable(CLASS, np.dtype(np.int64), [count])
    b.graph.inputs.append(given)
    return given


def _channel(b: Builder, y: Tensor, given: Tensor) -> Tensor:
    """The channel that each image's class names: bool (N, C, 1, ..., 1).

    Gather refuses a class that y does not have on a CPU; on CUDA it gives 0, which no channel is counted as,
    and p is all zero. Negative ones count from the end.
    """
    ones = [1] * len(y.shape[2:])
    countdown = _countdown(b, y, end=2)
    chosen = b.emit("Gather", countdown, given, dtype=np.int64, shape=given.shape)
    every = b.emit("Reshape", countdown, np.array([-1, *ones]), dtype=np.int64, shape=[y.shape[1], *ones])
    one = b.emit("Reshape", chosen, np.array([-1, 1, *ones]), dtype=np.int64, shape=[*given.shape, 1, *ones])
    return b.emit("Equal", every, one, dtype=bool, shape=[*given.shape, y.shape[1], *ones])


def _countdown(b: Builder, y: Tensor, end: int) -> Tensor:
    """n, ..., 2, 1 over the axes of y from the channels up to `end`, row-major: int64."""
    dims = y.shape[1:end]
    shape = b.emit("Shape", y, dtype=np.int64, shape=[len(dims)], start=1, end=end)
    n = b.emit("ReduceProd", shape, dtype=np.int64, shape=[], keepdims=0)
    flat = b.emit("Range", n, np.array(0), np.array(-1), dtype=np.int64, shape=[None])
    return b.emit("Reshape", flat, shape, dtype=np.int64, shape=dims)


def _largest(b: Builder, values: Tensor) -> Tensor:
    """Over all axes but the batch: (N, 1, ..., 1)."""
    return b.reduce("ReduceMax", values, range(1, len(values.shape)))


# ----- The fused model -----


def inside(fused: LightModel, y: str, choice: str, x_hats: Sequence[str] = ("x_hat",)) -> LightModel:
    """A fused model that makes p itself.

    Args:
        fused: With an input p. Nothing in it is called as the input `class`, if that is the choice.
        y: The name of the output that p is a projection of.
        choice: A key of CHOICES, or EITHER.
        x_hats: The names of the outputs that have a row for each of p.

    Returns:
        The model without the input p, with `class` where that is the choice; x_hat has a row per image.

    Raises:
        RevgraphError: y has no channels.
    """
    model = onnx.ModelProto()
    model.CopyFrom(fused.model)
    graph, chooser = model.graph, _chooser(model, y, choice)
    given = next(value for value in graph.input if value.name == "p")
    graph.value_info.extend([given, *chooser.value_info])
    graph.input.remove(given)
    graph.input.extend(value for value in chooser.input if value.name == CLASS)
    for x_hat in x_hats:
        rows(graph, x_hat).CopyFrom(rows(graph, y))
    stored = {tensor.name for tensor in graph.initializer}
    graph.initializer.extend(tensor for tensor in chooser.initializer if tensor.name not in stored)
    nodes = list(graph.node)
    after = 1 + next(i for i, node in enumerate(nodes) if y in node.output)
    del graph.node[:]
    graph.node.extend([*nodes[:after], *chooser.node, *nodes[after:]])
    return LightModel(model, fused.weights)


def rows(graph: onnx.GraphProto, name: str) -> onnx.TensorShapeProto.Dimension:
    """The first dimension of an output, or of an inner tensor."""
    value = next(value for value in (*graph.output, *graph.value_info) if value.name == name)
    return value.type.tensor_type.shape.dim[0]


def _chooser(model: onnx.ModelProto, y: str, choice: str) -> onnx.GraphProto:
    """y, and perhaps the class -> p."""
    value = next(value for value in model.graph.output if value.name == y)
    dtype, shape = dtype_of(value), shape_of(value)
    if len(shape) < 2:
        what = f"cannot choose a neuron of '{y}'"
        raise RevgraphError(what, "it has one axis, the batch", "another layer, of shape (N, C, ...)")
    scores = gs.Variable(y, dtype, shape)
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    b = Builder(gs.Graph(inputs=[scores], opset=opset), {*tensor_names(model)})
    b.scope = "choice"
    chosen = {**CHOICES, EITHER: _either}[choice](b, scores)
    b.graph.outputs = [b.cast(chosen, dtype, name="p")]
    return export(b.graph).model.graph


# ----- The name of the input -----


def give_way(light: LightModel) -> tuple[LightModel, str]:
    """Inner tensors and weights called `class` give way; inputs and outputs so called cannot.

    Returns:
        The model, and what they are called instead.

    Raises:
        RevgraphError: An input or output is called `class`.
    """
    model = onnx.ModelProto()
    model.CopyFrom(light.model)
    if CLASS in {value.name for value in (*model.graph.input, *model.graph.output)}:
        what = f"cannot choose by class in a model with an input or output called '{CLASS}'"
        raise RevgraphError(what, "the class itself is an input so called", "rename it, or choose max")
    new = Builder(gs.Graph(), {CLASS, *tensor_names(model)}).fresh(CLASS)
    _rename(model.graph, new)
    return LightModel(model, {new if name == CLASS else name: v for name, v in light.weights.items()}), new


def _rename(graph: onnx.GraphProto, new: str) -> None:
    """In branches of If and bodies of loops too, which see the names around them."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = new if value.name == CLASS else value.name
    for tensor in graph.initializer:
        tensor.name = new if tensor.name == CLASS else tensor.name
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == CLASS else name for name in names]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, new)
