"""Random legal CNN graphs, drawn by hypothesis."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from networks import model
from onnx import helper

Draw = Callable[[st.SearchStrategy[Any]], Any]

# fmt: off
RESIZING = frozenset({
    "Concat", "ConvTranspose", "Gather", "GlobalAveragePool", "GlobalMaxPool", "MatMul", "ReduceL2",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Slice",
})
# fmt: on
"""Operators whose output may have the size of their input by chance."""


@dataclass
class Net:
    """A network under construction: D spatial axes; `tensors` maps names to shapes without the batch.

    With `exact`, weights and inputs are small integers, so that float32 is exact, zeros and ties abound, and
    only operators that keep integers are drawn. With `free`, pictures of any size at least as large will do:
    tensors of one stage are of one size in all of them.
    """

    draw: Draw
    axes: int
    exact: bool
    free: bool
    opset: int
    rng: np.random.Generator
    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)
    stages: dict[str, int] = field(default_factory=lambda: {"x": 0})
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def many(self, *choices: int) -> list[int]:
        """One choice per axis."""
        return [self.pick(*choices) for _ in range(self.axes)]

    def weight(self, *shape: int) -> str:
        """New weights, or sometimes those of another layer."""
        same = [
            name
            for name, values in self.weights.items()
            if values.shape == shape and values.dtype == np.float32
        ]
        if same and self.pick(True, False, False):
            return str(self.pick(*same))
        values = self.rng.integers(-1, 2, shape) if self.exact else self.rng.standard_normal(shape) * 0.7
        return self.constant(values.astype(np.float32))

    def constant(self, values: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = values
        return name

    def node(self, op: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        self.tensors[name] = shape
        x = next((x for x in inputs if x in self.tensors), "")
        moves = max(attributes.get("strides", [1])) > 1 or op in RESIZING
        same = not moves and x and self.tensors[x][1:] == shape[1:]
        self.stages[name] = self.stages[x] if same else len(self.nodes)
        return name

    def hidden(self, op: str, inputs: list[str], **attributes: Any) -> str:
        """A node in the middle of a step, whose output no other step reads."""
        name = self.node(op, inputs, (), **attributes)
        del self.tensors[name], self.stages[name]
        return name

    def reduced(self, op: str, x: str, axes: list[int], **attributes: Any) -> str:
        """Along axes that are kept; they are an attribute before opset 18, except ReduceSum's."""
        shape = tuple(1 if i in axes else n for i, n in enumerate(self.tensors[x], 1))
        if self.opset < 18 and op != "ReduceSum":
            return self.node(op, [x], shape, axes=axes, **attributes)
        return self.node(op, [x, self.constant(np.array(axes))], shape, **attributes)

    def alike(self, x: str) -> list[str]:
        """Tensors of one size with x."""
        size = self.tensors[x][1:]
        return [
            name
            for name, shape in self.tensors.items()
            if shape[1:] == size and (not self.free or self.stages[name] == self.stages[x])
        ]


def extent(kernel: list[int], dilations: list[int]) -> list[int]:
    return [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]


def window(net: Net, size: tuple[int, ...], pooling: bool) -> tuple[dict[str, Any], tuple[int, ...]] | None:
    """Attributes of a window that fits the size, and the size of the output."""
    kernel, strides, dilations = net.many(1, 2, 3), net.many(1, 1, 2, 3), net.many(1, 1, 2)
    begin, end = ([net.pick(*range(k)) if k > 1 else 0 for k in kernel] for _ in range(2))
    reach = extent(kernel, dilations)
    room = [n + b + e - r for n, b, e, r in zip(size, begin, end, reach, strict=True)]
    if min(room) < 0:
        return None
    attributes = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": [*begin, *end]}
    ceil = pooling and net.pick(False, True)
    if ceil:
        attributes["ceil_mode"] = 1
    outputs = []
    for n, b, s, r in zip(size, begin, strides, room, strict=True):
        windows = r // s + 1
        # A window of ceil_mode that would start in the end padding is none.
        outputs.append(windows + 1 if ceil and r % s and windows * s < n + b else windows)
    return attributes, tuple(outputs)


# ---------------------------------------------------------------- steps: each adds a layer, or gives up


def conv(net: Net, x: str) -> str | None:
    channels, *size = net.tensors[x]
    found = window(net, tuple(size), pooling=False)
    if found is None:
        return None
    group = net.pick(1, *([channels] if channels > 1 else []), *([2] if channels % 2 == 0 else []))
    out = group * net.pick(1, 2)
    inputs = [x, net.weight(out, channels // group, *found[0]["kernel_shape"])]
    if net.pick(True, False):
        inputs.append(net.weight(out))
    return net.node("Conv", inputs, (out, *found[1]), group=group, **found[0])


def pool(net: Net, x: str) -> str | None:
    channels, *size = net.tensors[x]
    found = window(net, tuple(size), pooling=True)
    op = "MaxPool" if net.exact else net.pick("MaxPool", "MaxPool", "AveragePool")
    if found is None or min(found[1]) < 1:
        return None
    attributes, outputs = found
    if op == "AveragePool":
        attributes.pop("dilations")
        attributes["count_include_pad"] = net.pick(0, 1)
        reach = attributes["kernel_shape"]
        pads = attributes["pads"]
        outputs = []
        for i, n in enumerate(size):
            room = n + pads[i] + pads[i + net.axes] - reach[i]
            windows, rest = room // attributes["strides"][i] + 1, room % attributes["strides"][i]
            starts = windows * attributes["strides"][i] < n + pads[i]
            outputs.append(windows + 1 if attributes.get("ceil_mode") and rest and starts else windows)
    return net.node(op, [x], (channels, *outputs), **attributes)


def activation(net: Net, x: str) -> str | None:
    shape = net.tensors[x]
    if net.exact:
        op = net.pick("Relu", "Relu", "Clip", "Neg", "Abs", "Identity")
    else:
        smooth = (
            "Sigmoid",
            "Tanh",
            "Elu",
            "LeakyRelu",
            "HardSwish",
            "Softplus",
            "Erf",
            "Softmax",
            "HardSigmoid",
        )
        op = net.pick("Relu", "Relu", "Relu", "Clip", "SiLU", "PRelu", *smooth)
    if op == "Clip":
        return net.node("Clip", [x, net.constant(np.float32(0)), net.constant(np.float32(6))], shape)
    if op == "PRelu":
        return net.node("PRelu", [x, net.weight(shape[0], *[1] * net.axes)], shape)
    if op == "SiLU":
        return net.node("Mul", [x, net.node("Sigmoid", [x], shape)], shape)
    return net.node(op, [x], shape, **({"axis": 1} if op == "Softmax" else {}))


def join(net: Net, x: str) -> str | None:
    """Add, subtract, multiply, choose from or concatenate tensors of one size."""
    shape = net.tensors[x]
    other = net.pick(*net.alike(x))
    channels = net.tensors[other][0]
    op = net.pick("Concat", "Add", "Sum", "Sub", "Max", "Min", "Where", *(() if net.exact else ("Mul",)))
    if op == "Concat":
        axis = net.pick(1, 1, *(2, 1 + net.axes) * (channels == shape[0]))
        joined = [
            n + (m if i == axis else 0)
            for i, (n, m) in enumerate(zip(shape, net.tensors[other], strict=True), 1)
        ]
        name = net.node("Concat", [x, other], tuple(joined), axis=axis)
        if axis == 1:
            net.stages[name] = net.stages[x]
        return name
    if channels != shape[0] and 1 not in (channels, shape[0]):
        return None
    result = (max(channels, shape[0]), *shape[1:])
    if op in ("Max", "Min", "Sum") and net.pick(True, False):
        return net.node(op, [x, other, net.pick(x, other)], result)
    if op == "Where":
        return net.node("Where", [condition(net, x if channels == 1 else other), x, other], result)
    return net.node(op, [x, other], result)


def condition(net: Net, x: str) -> str:
    """Which of two is taken: a constant, or where x is positive."""
    if net.pick(True, False):
        return net.constant(net.rng.random((net.tensors[x][0], *[1] * net.axes)) > 0.5)
    return net.hidden("Greater", [x, net.constant(np.float32(0))])


def scale(net: Net, x: str) -> str | None:
    shape = net.tensors[x]
    per_channel = net.weight(shape[0], *[1] * net.axes)
    if net.exact or net.pick(True, False):
        return net.node(net.pick("Mul", "Add"), [x, per_channel], shape)
    positive = net.constant(net.rng.uniform(0.5, 2, shape[0]).astype(np.float32))
    inputs = [x, net.weight(shape[0]), net.weight(shape[0]), net.weight(shape[0]), positive]
    return net.node("BatchNormalization", inputs, shape)


def normalise(net: Net, x: str) -> str | None:
    shape = net.tensors[x]
    if net.exact:
        return None
    kind = net.pick("LRN", "Instance", "Layer", "all", "L2", *(("Group",) if net.opset >= 21 else ()))
    if kind == "LRN" and net.axes == 2 and net.pick(True, False):  # onnxruntime's LRN takes no other
        attributes = {"size": net.pick(1, 3, 5), "alpha": 0.5, "beta": 0.75, "bias": net.pick(1.0, 2.0)}
        return net.node("LRN", [x], shape, **attributes)
    if kind == "LRN" and net.axes < 3:
        return written_lrn(net, x)
    if kind == "Group":
        groups = net.pick(*(n for n in range(1, shape[0] + 1) if shape[0] % n == 0))
        inputs = [x, net.weight(shape[0]), net.weight(shape[0])]
        return net.node("GroupNormalization", inputs, shape, num_groups=groups)
    if kind == "Layer":
        there, back = [0, *range(2, 2 + net.axes), 1], [0, 1 + net.axes, *range(1, 1 + net.axes)]
        moved = net.hidden("Transpose", [x], perm=there)
        normed = net.hidden("LayerNormalization", [moved, net.weight(shape[0]), net.weight(shape[0])])
        name = net.node("Transpose", [normed], shape, perm=back)
        net.stages[name] = net.stages[x]
        return name
    if kind == "all" and not net.free:
        return net.node("LayerNormalization", [x, net.weight(*shape), net.weight(*shape)], shape, axis=1)
    if kind == "L2":
        length = net.reduced("ReduceL2", x, net.pick([1], [2], list(range(1, 2 + net.axes))))
        return net.node("Div", [x, net.hidden("Add", [length, net.constant(np.float32(0.5))])], shape)
    return net.node("InstanceNormalization", [x, net.weight(shape[0]), net.weight(shape[0])], shape)


def written_lrn(net: Net, x: str) -> str:
    """As TorchScript leaves it: the squares of neighbouring channels averaged by a pool in one more axis."""
    n, axes = net.pick(2, 3, 5), net.axes
    one = net.constant(np.array([1]))
    begin, end = [0, 0, n // 2, *[0] * axes], [0, 0, (n - 1) // 2, *[0] * axes]
    square = net.hidden("Mul", [x, x])
    planes = net.hidden("Unsqueeze", [square, one])
    padded = net.hidden("Pad", [planes, net.constant(np.array([*begin, *end]))])
    pooled = net.hidden("AveragePool", [padded], kernel_shape=[n, *[1] * axes], strides=[1] * (1 + axes))
    mean = net.hidden("Squeeze", [pooled, one])
    scaled = net.hidden("Mul", [mean, net.constant(np.float32(0.5))])
    inside = net.hidden("Add", [scaled, net.constant(np.float32(net.pick(1, 2)))])
    power = net.hidden("Pow", [inside, net.constant(np.float32(net.pick(0.5, 0.75)))])
    return net.node("Div", [x, power], net.tensors[x])


def move(net: Net, x: str) -> str | None:
    """Pad, crop, shuffle channels, or split and put together again."""
    channels, *size = net.tensors[x]
    op = net.pick("Pad", "Slice", "Gather", "Split", "Reshape")
    if op == "Pad":
        return pad(net, x)
    if op == "Slice":
        if min(size) < 3:
            return None
        bounds = [net.constant(np.full(net.axes, n)) for n in (1, 2**62)]
        bounds += [net.constant(np.arange(2, 2 + net.axes)), net.constant(np.array(steps := net.many(1, 2)))]
        return net.node(
            "Slice", [x, *bounds], (channels, *(-(-(n - 1) // s) for n, s in zip(size, steps, strict=True)))
        )
    if op == "Gather":
        axis = net.pick(1, 1, 2)
        n = net.tensors[x][axis - 1]
        at = net.rng.permutation(n) if net.pick(True, False) else net.rng.integers(-n, n, net.pick(2, 3, 5))
        shape = [len(at) if i == axis else n for i, n in enumerate(net.tensors[x], 1)]
        name = net.node("Gather", [x, net.constant(at)], tuple(shape), axis=axis)
        if axis == 1:
            net.stages[name] = net.stages[x]
        return name
    if channels % 2:
        return None
    if op == "Split":
        halves = [f"half{len(net.nodes)}_{i}" for i in range(2)]
        count = {"num_outputs": 2} if net.opset >= 18 else {}
        net.nodes.append(helper.make_node("Split", [x], halves, name=halves[0], axis=1, **count))
        net.tensors |= dict.fromkeys(halves, (channels // 2, *size))
        net.stages |= dict.fromkeys(halves, net.stages[x])
        name = net.node("Concat", halves[::-1], (channels, *size), axis=1)
    else:
        # ShuffleNet's shuffle of channels.
        folded = net.hidden("Reshape", [x, target(net, x, 2, channels // 2)])
        turned = net.hidden("Transpose", [folded], perm=[0, 2, 1, *range(3, 3 + net.axes)])
        name = net.node("Reshape", [turned, target(net, x, channels)], (channels, *size))
    net.stages[name] = net.stages[x]
    return name


def pad(net: Net, x: str) -> str | None:
    channels, *size = net.tensors[x]
    mode = net.pick("constant", "constant", "reflect", "edge", *(("wrap",) if net.opset >= 19 else ()))
    if mode in ("reflect", "wrap") and min(size) < 3:
        return None
    begin, end = net.many(0, 1), net.many(0, 2)
    pads = net.constant(np.array([0, 0, *begin, 0, 0, *end]))
    shape = (channels, *(n + b + e for n, b, e in zip(size, begin, end, strict=True)))
    return net.node("Pad", [x, pads], shape, mode=mode)


def target(net: Net, x: str, *channels: int) -> str:
    """The batch, these channels, and the size of x: in numbers, or computed as exporters do."""
    if not net.free and net.pick(True, False):
        return net.constant(np.array([0, *channels, *net.tensors[x][1:]]))
    shape = net.hidden("Shape", [x])
    zero, axis = net.constant(np.array(0)), net.constant(np.array([0]))
    parts = [net.hidden("Unsqueeze", [net.hidden("Gather", [shape, zero]), axis])]
    parts.append(net.constant(np.array(channels)))
    if net.pick(True, False):
        bounds = [net.constant(np.array([n])) for n in (2, 2**62)]
        parts.append(net.hidden("Slice", [shape, *bounds]))
    else:
        for i in range(2, 2 + net.axes):
            number = net.hidden("Gather", [shape, net.constant(np.array(i))])
            parts.append(net.hidden("Unsqueeze", [number, axis]))
    return net.hidden("Concat", parts, axis=0)


def gate(net: Net, x: str) -> str | None:
    """Squeeze and excitation, extrema along axes, or attention."""
    channels, *size = net.tensors[x]
    kind = net.pick("excite", "extremum", "extremum", "GlobalMaxPool", "attend")
    if kind == "GlobalMaxPool":
        return net.node("GlobalMaxPool", [x], (channels, *[1] * net.axes))
    if kind == "extremum" or net.exact:
        return extremum(net, x)
    if kind == "attend":
        return attend(net, x)
    squeezed = net.node("GlobalAveragePool", [x], (channels, *[1] * net.axes))
    excited = net.node(
        "Conv", [squeezed, net.weight(channels, channels, *[1] * net.axes)], (channels, *[1] * net.axes)
    )
    return net.node("Mul", [x, net.node("Sigmoid", [excited], net.tensors[excited])], (channels, *size))


def attend(net: Net, x: str) -> str | None:
    """Rows to rows of another tensor, or every position to every other."""
    channels, *size = net.tensors[x]
    if net.axes == 1:
        return None
    if net.pick(True, False):
        perm = [*range(net.axes), net.axes + 1, net.axes]
        other = net.hidden("Transpose", [net.pick(*net.alike(x))], perm=perm)
        return net.node("MatMul", [x, other], (channels, *size[:-1], size[-2]))
    if np.prod(size) > 64:
        return None
    keys = net.hidden("Reshape", [x, net.constant(np.array([0, channels, -1]))])
    queries = net.hidden("Transpose", [keys], perm=[0, 2, 1])
    share = net.hidden("Softmax", [net.hidden("MatMul", [queries, keys])], axis=-1)
    values = net.hidden("Transpose", [net.hidden("MatMul", [share, queries])], perm=[0, 2, 1])
    return net.node("Reshape", [values, target(net, x, channels)], net.tensors[x])


def extremum(net: Net, x: str) -> str:
    axes = net.pick([1], [2], [1 + net.axes], list(range(2, 2 + net.axes)), [1, 2])
    found = net.reduced(net.pick("ReduceMax", "ReduceMin"), x, axes)
    op = net.pick("", "Sub", "Max", *(() if net.exact else ("Mul",)))
    return net.node(op, [x, found], net.tensors[x]) if op else found


def enlarge(net: Net, x: str) -> str | None:
    channels, *size = net.tensors[x]
    if net.pick(True, False):
        factors = net.many(1, 2)
        scales = net.constant(np.array([1, 1, *factors], np.float32))
        linear = {} if net.exact or net.axes == 3 else {"mode": net.pick("nearest", "linear")}
        attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor", **linear}
        shape = (channels, *(n * f for n, f in zip(size, factors, strict=True)))
        return net.node("Resize", [x, "", scales], shape, **attributes)
    kernel, strides = net.many(1, 2, 3), net.many(1, 2)
    shape = tuple((n - 1) * s + k for n, s, k in zip(size, strides, kernel, strict=True))
    out = net.pick(1, 2)
    return net.node("ConvTranspose", [x, net.weight(channels, out, *kernel)], (out, *shape), strides=strides)


def branch(net: Net, x: str) -> str:
    """One of two layers, by a condition that the sizes decide."""
    shape = net.tensors[x]
    channels = net.hidden("Gather", [net.hidden("Shape", [x]), net.constant(np.array(1))])
    few = net.hidden("Less", [channels, net.constant(np.array(net.pick(1, 3, 9)))])
    declared = helper.make_tensor_value_info("o", onnx.TensorProto.FLOAT, None)
    weight = [onnx.numpy_helper.from_array(np.float32(net.pick(-1, 1, 2)), "w")]
    layers = [[helper.make_node("Relu", [x], ["o"])], [helper.make_node("Mul", [x, "w"], ["o"])]]
    then, otherwise = (helper.make_graph(nodes, "b", [], [declared], weight) for nodes in layers)
    name = net.node("If", [few], shape, then_branch=then, else_branch=otherwise)
    net.stages[name] = net.stages[x]
    return name


STEPS = (
    conv,
    conv,
    conv,
    activation,
    activation,
    activation,
    pool,
    pool,
    join,
    join,
    scale,
    normalise,
    move,
    gate,
    enlarge,
    branch,
)


def head(net: Net, x: str) -> str:
    """A classifier, sometimes."""
    shape = net.tensors[x]
    kind = net.pick("none", "Gemm", "reduce", "flatten")
    if kind == "Gemm" and net.free:
        op = "GlobalMaxPool" if net.exact else "GlobalAveragePool"
        x, shape = net.node(op, [x], (shape[0], *[1] * net.axes)), (shape[0],)
    if kind == "flatten":
        return flattened(net, x)
    if kind == "Gemm":
        flat = flattened(net, x)
        transposed = net.pick(0, 1)
        features = int(np.prod(shape))
        weight = net.weight(*((5, features) if transposed else (features, 5)))
        return net.node("Gemm", [flat, weight, net.weight(5)], (5,), transB=transposed)
    if kind == "reduce":
        axes = list(range(2, 2 + net.axes))
        return net.node("ReduceSum", [x, net.constant(np.array(axes))], (shape[0],), keepdims=0)
    return x


def flattened(net: Net, x: str) -> str:
    """By Flatten, or by Reshape to the batch and the rest, known or computed."""
    features = (int(np.prod(net.tensors[x])),)
    kind = net.pick("Flatten", "known", "computed")
    if kind == "Flatten":
        return net.node("Flatten", [x], features)
    batch, rest = net.constant(np.array([0])), net.constant(np.array([-1]))
    if kind == "computed":
        batch = net.hidden("Gather", [net.hidden("Shape", [x]), batch])
    return net.node("Reshape", [x, net.hidden("Concat", [batch, rest], axis=0)], features)


def reaching(nodes: list[onnx.NodeProto], y: str) -> list[onnx.NodeProto]:
    """The nodes that y depends on: to the oracle a dead reader is one, which keeps a group from being one."""
    needed, kept = {y}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            inner = [a.g.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
            needed.update(node.input, *(captured.input for nodes in inner for captured in nodes))
            kept.insert(0, node)
    return kept


@st.composite
def graphs(draw: Draw, exact: bool) -> tuple[onnx.ModelProto, list[tuple[int, ...]], int]:
    """A model, one or two shapes of its input (N, C, ...), and a seed for the input."""
    seed = draw(st.integers(0, 2**32 - 1))
    axes = draw(st.sampled_from((2, 2, 2, 1, 3)))
    size = tuple(draw(st.integers(3, 9 if axes < 3 else 5)) for _ in range(axes))
    free, opset = draw(st.sampled_from((False, False, True))), draw(st.sampled_from((17, 17, 21)))
    tensors = {"x": (draw(st.integers(1, 4)), *size)}
    net = Net(draw, axes, exact, free, opset, np.random.default_rng(seed), tensors)
    x, shape = "x", net.tensors["x"]
    for _ in range(draw(st.integers(2, 9))):
        source = net.pick(x, x, x, *net.tensors)
        if np.prod(net.tensors[source]) < 4000 and (y := net.pick(*STEPS)(net, source)) is not None:
            x = y
    if x == "x":
        x = net.node("Relu", ["x"], shape)
    y = head(net, x)
    batch = draw(st.sampled_from(("N", 2)))
    declared = [batch, *net.tensors[y]]
    sizes = ["D", "H", "W"][-axes:] if free else size
    source = model(
        reaching(net.nodes, y),
        [batch, shape[0], *sizes],
        net.weights,
        [y],
        opset=opset,
        ir_version=10 if opset > 20 else 8,
    )
    # What onnxruntime computes: ONNX's inference counts the windows of ceil_mode otherwise.
    if free:
        declared[1:] = [None] * len(declared[1:])
    source.graph.output[0].CopyFrom(helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, declared))
    larger = [n + draw(st.integers(0, 3)) for n in size]
    return source, [(2, *shape), *([(2, shape[0], *larger)] if free else [])], seed
