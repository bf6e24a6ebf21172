"""float16 signals kept in range: block floating point, one scale for each row of p.

What comes back from y soon leaves what float16 holds: from one neuron it shrinks, and where only positive
terms add up it grows. But every variant is positively homogeneous in p. So a signal is stored divided by a
scale, which is handed on beside it, and x_hat is multiplied by that at the end, in float32. A signal is
divided by its largest number where the weights' own sums say that the next layer could take it out of range.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from revgraph.flow import CONSTANT
from revgraph.graph import Builder, Tensor, gs, sort, static
from revgraph.window import Window

MOST = 60000.0
"""What no stored number exceeds; float16 ends at 65504."""

LEAST = 2.0**-8
"""What the largest is not left below: float16 has steps down to 2^-16 of that."""

TINY = 2.0**-24
"""Divides rows that are zero: the least that float16 has, so that it is no other row's largest."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A tensor of the reversed graph that depends on p.

    Attributes:
        stored: The signal divided by its scale, (P, ...).
        scale: float32, (P, 1, ..., 1), zero for rows that are; None stands for one.
        most: What no element of `stored` exceeds.
        least: What its largest is unlikely to fall below, unless it is zero.
    """

    stored: Tensor
    scale: Tensor | None = None
    most: float = math.inf
    least: float = 0.0


@dataclass(frozen=True, slots=True)
class Gain:
    """By how much the largest number grows at most, and by how little it may be expected to."""

    most: float
    least: float


def keep_in_range(rev: Builder) -> dict[str, str]:
    """Rewrite a reversed graph in the middle form, in place, so that its float16 signals stay in range.

    Returns:
        Signals that are stored scaled, by name, each with the name of its scale.
    """
    graph = rev.graph
    if not any(tensor.dtype == np.float16 for node in graph.nodes for tensor in node.outputs):
        return {}
    scaling = _Scaling(rev)
    for node in list(sort(graph).nodes):
        rev.scope = node.name
        scaling.rewrite(node)
    scaling.restore(graph.outputs[0])
    sort(graph)
    return {name: signal.scale.name for name, signal in scaling.signals.items() if signal.scale is not None}


class _Scaling:
    """The signals met so far, as they are stored."""

    def __init__(self, rev: Builder) -> None:
        self._rev = rev
        self._forks = {name for name, tensor in rev.graph.tensors().items() if len(tensor.outputs) > 1}
        self.signals = {"p": Signal(rev.graph.inputs[0])}
        self._normal = dict[str, Signal]()

    def rewrite(self, node: gs.Node) -> None:
        """Let one node read what keeps its result in range."""
        places = [i for i, tensor in enumerate(node.inputs) if tensor.name in self.signals]
        if not places or node.op in CONSTANT:  # a shape does not grow with p
            return
        gain = GAINS.get(node.op, _unknown)(node)
        read = [self.signals[node.inputs[i].name] for i in places]
        if node.outputs[0].dtype == np.float16:
            read = [self._kept(signal, gain, len(read)) for signal in read]
        read = self._aligned(read)
        for i, signal in zip(places, read, strict=True):
            node.inputs[i] = signal.stored
        self.signals[node.outputs[0].name] = Signal(
            node.outputs[0],
            read[0].scale,
            gain.most * sum(signal.most for signal in read),
            gain.least * min(signal.least for signal in read),
        )

    def restore(self, x_hat: gs.Variable) -> None:
        """Multiply the last signal by its scale."""
        (identity,) = x_hat.inputs
        last = self.signals.pop(x_hat.name)
        if last.scale is None:
            return
        (stored,) = identity.inputs
        whole = self._cast(stored, np.float32)
        product = self._emit("Mul", whole, self._shaped(last.scale, whole), like=whole)
        identity.inputs[0] = self._cast(product, stored.dtype)

    def _kept(self, signal: Signal, gain: Gain, terms: int) -> Signal:
        """The signal, such that a result of so many terms stays in range.

        Branches that start from one scale need none of their own, nor to be aligned where they meet.
        """
        safe = signal.most * gain.most * terms <= MOST and signal.least * gain.least >= LEAST
        forks = signal.stored.name in self._forks and signal.most > 1
        return signal if safe and not forks else self._normalised(signal)

    def _normalised(self, signal: Signal) -> Signal:
        """The same, the largest number of each row 1."""
        name = signal.stored.name
        if name not in self._normal:
            normal = self._normalise(signal)
            self._normal |= {name: normal, normal.stored.name: normal}
        return self._normal[name]

    def _normalise(self, signal: Signal) -> Signal:
        stored = signal.stored
        largest = self._largest(self._emit("Abs", stored, like=stored))
        tiny = np.array(TINY if stored.dtype == np.float16 else np.finfo(np.float32).tiny, stored.dtype)
        divisor = self._emit("Max", largest, tiny, like=largest)
        scale = self._cast(largest, np.float32)
        if signal.scale is not None:
            scale = self._emit("Mul", scale, self._shaped(signal.scale, scale), like=scale)
        # p may be one neuron, and its weights all small.
        least = LEAST if stored.name == "p" else 1.0
        return Signal(self._emit("Div", stored, divisor, like=stored), scale, 1.0, least)

    def _aligned(self, signals: list[Signal]) -> list[Signal]:
        """The same with one scale, the largest; no signal is lost for one that has all but vanished."""
        if len({id(signal.scale) for signal in signals}) == 1:
            return signals
        signals = [self._normalised(signal) for signal in signals]
        scales = [signal.scale for signal in signals if signal.scale is not None]
        common = self._emit("Max", *scales, np.array(np.finfo(np.float32).tiny), like=scales[0])
        return [self._shrunk(signal, common) for signal in signals]

    def _shrunk(self, signal: Signal, common: Tensor) -> Signal:
        assert signal.scale is not None
        stored, ratio = signal.stored, self._emit("Div", signal.scale, common, like=common)
        product = self._emit("Mul", stored, self._cast(ratio, stored.dtype), like=stored)
        return replace(signal, stored=product, scale=common)

    # ----- Nodes -----

    def _largest(self, x: Tensor) -> Tensor:
        axes = range(1, len(x.shape))
        return self._rev.reduce("ReduceMax", x, axes, keepdims=1) if axes else x

    def _shaped(self, scale: Tensor, like: Tensor) -> Tensor:
        """The scale with as many axes as what it belongs to."""
        ones = [1] * (len(like.shape) - 1)
        if len(scale.shape) == 1 + len(ones):
            return scale
        shape = [scale.shape[0], *ones]
        return self._rev.emit("Reshape", scale, np.array([-1, *ones]), dtype=scale.dtype, shape=shape)

    def _emit(self, operator: str, *inputs: Tensor | np.ndarray, like: Tensor) -> Tensor:
        return self._rev.emit(operator, *inputs, dtype=like.dtype, shape=like.shape)

    def _cast(self, x: Tensor, dtype: type) -> Tensor:
        return x if x.dtype == dtype else self._rev.cast(x, dtype)


# ---------------------------------------------------------------- what a layer does to the largest number


def _unknown(node: gs.Node) -> Gain:
    """What only the run knows."""
    return Gain(math.inf, 1.0)


def _one(node: gs.Node) -> Gain:
    return Gain(1.0, 1.0)


def _sums(axes: Callable[[gs.Node, np.ndarray], tuple[int, ...]]) -> Callable[[gs.Node], Gain]:
    """Of a product with constant weights, which adds up over some of their axes."""

    def gain(node: gs.Node) -> Gain:
        weight = node.inputs[1]
        if not isinstance(weight, gs.Constant) or not weight.values.size:
            return _unknown(node)
        values = np.abs(_grouped(node, weight.values).astype(np.float32))
        factor = abs(node.attrs.get("alpha", 1.0))
        most = values.sum(axis=axes(node, values), dtype=np.float64).max()
        return Gain(factor * float(most), factor * float(values.max()))

    return gain


def _grouped(node: gs.Node, values: np.ndarray) -> np.ndarray:
    """Of a transposed convolution (group, C_out / group, C_in / group, *kernel); others as they are."""
    if node.op != "ConvTransposed":
        return values
    return values.reshape(node.attrs["group"], -1, *values.shape[1:])


def _meeting(node: gs.Node) -> Gain:
    """As many windows as may share an element."""
    window = Window.of(node.attrs)
    return Gain(float(math.prod(-(-k // s) for k, s in zip(window.kernel, window.strides, strict=True))), 1.0)


def _factor(node: gs.Node) -> Gain:
    factor = node.inputs[1]
    if not isinstance(factor, gs.Constant):
        return Gain(node.attrs.get("most", math.inf), 1.0)
    largest = float(np.abs(factor.values).max(initial=0))
    return Gain(largest, largest)


def _reduced(node: gs.Node) -> Gain:
    x, y = node.inputs[0].shape, node.outputs[0].shape
    if not (static(x[1:]) and static(y[1:])):
        return _unknown(node)
    return Gain(math.prod(x[1:]) / max(math.prod(y[1:]), 1), 1.0)


# fmt: off
MOVES = (
    "Add", "Cast", "Concat", "DepthToSpace", "Gate", "Gather", "Identity", "Neg", "Pad", "Rectify", "Reshape",
    "Slice", "SpaceToDepth", "Squeeze", "Sub", "Sum", "Transpose", "Unsqueeze",
)
# fmt: on
GAINS: Mapping[str, Callable[[gs.Node], Gain]] = {
    **dict.fromkeys(MOVES, _one),
    "Conv": _sums(lambda node, values: tuple(range(1, values.ndim))),
    "ConvTransposed": _sums(lambda node, values: (1, *range(3, values.ndim))),
    "GemmTransposed": _sums(lambda node, values: (0 if node.attrs["transB"] else 1,)),
    "MatMul": _sums(lambda node, values: (values.ndim - 2,)),
    "ReduceSum": _reduced,
    "Scale": _factor,
    "Unpool": _meeting,
    "UnpoolCentre": _meeting,
}
