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


@dataclass
class Net:
    """A network under construction: D spatial axes; `tensors` maps names to shapes without the batch.

    With `exact`, weights and inputs are small integers, so that float32 is exact, zeros and ties abound, and
    only operators that keep integers are drawn.
    """

    draw: Draw
    axes: int
    exact: bool
    rng: np.random.Generator
    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)
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
        return name


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
    """Add, subtract, multiply or concatenate two tensors of one size."""
    shape = net.tensors[x]
    other = net.pick(*[name for name, s in net.tensors.items() if s[1:] == shape[1:]])
    channels = net.tensors[other][0]
    op = net.pick("Concat", "Add", "Sum", "Sub", *(() if net.exact else ("Mul",)))
    if op == "Concat":
        return net.node("Concat", [x, other], (shape[0] + channels, *shape[1:]), axis=1)
    if channels != shape[0] and 1 not in (channels, shape[0]):
        return None
    return net.node(op, [x, other], (max(channels, shape[0]), *shape[1:]))


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
    if net.axes == 2 and net.pick(True, False):  # onnxruntime's LRN takes no other
        attributes = {"size": net.pick(1, 3, 5), "alpha": 0.5, "beta": 0.75, "bias": net.pick(1.0, 2.0)}
        return net.node("LRN", [x], shape, **attributes)
    return net.node("InstanceNormalization", [x, net.weight(shape[0]), net.weight(shape[0])], shape)


def move(net: Net, x: str) -> str | None:
    """Pad, crop, shuffle channels, or split and put together again."""
    channels, *size = net.tensors[x]
    op = net.pick("Pad", "Slice", "Gather", "Split", "Reshape")
    if op == "Pad":
        begin, end = net.many(0, 1), net.many(0, 2)
        pads = net.constant(np.array([0, 0, *begin, 0, 0, *end]))
        return net.node(
            "Pad", [x, pads], (channels, *(n + b + e for n, b, e in zip(size, begin, end, strict=True)))
        )
    if op == "Slice":
        if min(size) < 3:
            return None
        bounds = [net.constant(np.full(net.axes, n)) for n in (1, 2**62)]
        bounds += [net.constant(np.arange(2, 2 + net.axes)), net.constant(np.array(steps := net.many(1, 2)))]
        return net.node(
            "Slice", [x, *bounds], (channels, *(-(-(n - 1) // s) for n, s in zip(size, steps, strict=True)))
        )
    if op == "Gather":
        return net.node("Gather", [x, net.constant(net.rng.permutation(channels))], (channels, *size), axis=1)
    if channels % 2:
        return None
    if op == "Split":
        halves = [f"half{len(net.nodes)}_{i}" for i in range(2)]
        net.nodes.append(helper.make_node("Split", [x], halves, name=halves[0], axis=1))
        net.tensors |= dict.fromkeys(halves, (channels // 2, *size))
        return net.node("Concat", halves[::-1], (channels, *size), axis=1)
    # ShuffleNet's shuffle of channels.
    folded = net.node("Reshape", [x, net.constant(np.array([0, 2, channels // 2, *size]))], ())
    perm = [0, 2, 1, *range(3, 3 + net.axes)]
    turned = net.node("Transpose", [folded], (), perm=perm)
    del net.tensors[folded], net.tensors[turned]
    return net.node("Reshape", [turned, net.constant(np.array([0, channels, *size]))], (channels, *size))


def gate(net: Net, x: str) -> str | None:
    """Squeeze and excitation."""
    channels, *size = net.tensors[x]
    if net.exact:
        return net.node("GlobalMaxPool", [x], (channels, *[1] * net.axes))
    squeezed = net.node("GlobalAveragePool", [x], (channels, *[1] * net.axes))
    excited = net.node(
        "Conv", [squeezed, net.weight(channels, channels, *[1] * net.axes)], (channels, *[1] * net.axes)
    )
    return net.node("Mul", [x, net.node("Sigmoid", [excited], net.tensors[excited])], (channels, *size))


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
)


def head(net: Net, x: str) -> str:
    """A classifier, sometimes."""
    shape = net.tensors[x]
    kind = net.pick("none", "Gemm", "reduce")
    if kind == "Gemm":
        flat = net.node("Flatten", [x], (int(np.prod(shape)),))
        transposed = net.pick(0, 1)
        features = int(np.prod(shape))
        weight = net.weight(*((5, features) if transposed else (features, 5)))
        return net.node("Gemm", [flat, weight, net.weight(5)], (5,), transB=transposed)
    if kind == "reduce":
        axes = list(range(2, 2 + net.axes))
        return net.node("ReduceSum", [x, net.constant(np.array(axes))], (shape[0],), keepdims=0)
    return x


def reaching(nodes: list[onnx.NodeProto], y: str) -> list[onnx.NodeProto]:
    """The nodes that y depends on: to the oracle a dead reader is one, which keeps a group from being one."""
    needed, kept = {y}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.insert(0, node)
    return kept


@st.composite
def graphs(draw: Draw, exact: bool) -> tuple[onnx.ModelProto, tuple[int, ...], int]:
    """A model, the shape of its input (N, C, ...), and a seed for the input."""
    seed = draw(st.integers(0, 2**32 - 1))
    axes = draw(st.sampled_from((2, 2, 2, 1, 3)))
    size = tuple(draw(st.integers(3, 9 if axes < 3 else 5)) for _ in range(axes))
    net = Net(draw, axes, exact, np.random.default_rng(seed), {"x": (draw(st.integers(1, 4)), *size)})
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
    source = model(reaching(net.nodes, y), [batch, *shape], net.weights, [y])
    # What onnxruntime computes: ONNX's inference counts the windows of ceil_mode otherwise.
    source.graph.output[0].CopyFrom(helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, declared))
    return source, (2, *shape), seed
