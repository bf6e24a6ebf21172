"""Float16 for a network in float32: which layers compute in it, and the Casts between those and the rest.

Inputs, outputs and y stay as the model declares them. What sums squares, or takes powers, stays in float32,
and so does a layer whose weights float16 cannot hold.
"""

import math

import numpy as np

from revgraph import flow
from revgraph.canonical import patterns
from revgraph.errors import RevgraphError
from revgraph.graph import Builder, Tensor, gs, inner_tensors, producer, replace, sort, static, tidy

# fmt: off
LAYERS = frozenset({
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace",
    "Dropout", "Elu", "Erf", "Expand", "Flatten", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool",
    "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MatMul", "MaxPool", "Mish", "Mul",
    "Neg", "PRelu", "Pad", "Relu", "Reshape", "Resize", "Selu", "Sigmoid", "Silu", "Slice", "Softplus",
    "SpaceToDepth", "Squeeze", "Sub", "Sum", "Tanh", "Transpose", "Unsqueeze", "Where",
})
# fmt: on
"""Operators that float16 suits: their results are not much larger than what they read."""

DATA_ONLY = ("Dropout", "Resize")
"""Those whose further inputs have a type of their own."""

LIMITS = (-65504.0, 65504.0)

LOST = 2.0**-9
"""The most that rounding may take of weights, relative to their norm; 2^-12 is usual, more is underflow."""

AREA = 4096
"""Elements of an average, whose factor when reversed is one over that."""


def in_half(fwd: Builder, y: gs.Variable) -> None:
    """Let the forward graph compute in float16 where it can, in place; what is float16 already stays.

    Requires: a canonical graph, y among its outputs.

    Raises:
        RevgraphError: It has no layer for that.
    """
    graph = fwd.graph
    kept = {tensor.name for tensor in (*graph.outputs, *inner_tensors(graph))}
    _settle_norms(fwd, kept)
    with patterns.grouped(graph, y) as groups:
        pass
    live = set[str]().union(*(flow.descendants(graph, x) for x in graph.inputs))
    suits = {id(node): node.op in LAYERS for node in graph.nodes}
    for group in groups:
        whole = all(node.op in LAYERS for node in group.stand_ins)
        suits |= {id(node): whole for node, *_ in group.nodes}
    types = _Types(fwd, kept)
    for node in list(sort(graph).nodes):
        computed = any(tensor.name in live for tensor in node.outputs)  # and not from sizes
        types.settle(node, computed and suits[id(node)] and _holds(node))
    tidy(graph)
    if not any(tensor.dtype == np.float16 for tensor in graph.tensors().values()):
        why = "no layer of it computes in float32, or float16 suits none"
        raise RevgraphError("cannot compile for fp16", why, "compile with --precision fp32")


def _holds(node: gs.Node) -> bool:
    """Whether float16 holds the layer's weights, and is wide enough for what it computes."""
    if node.op == "Mul" and node.inputs[0] is node.inputs[1]:
        return False
    if node.op == "GlobalAveragePool":
        shape = node.inputs[0].shape
        return shape is not None and static(shape[2:]) and math.prod(shape[2:]) <= AREA
    constants = [tensor.values for tensor in _data(node) if isinstance(tensor, gs.Constant)]
    if node.op == "Clip":  # a bound that nothing in float16 exceeds is none
        constants = [np.clip(values, *LIMITS) for values in constants]
    return all(_fits(values) for values in constants if values.dtype == np.float32)


def _data(node: gs.Node) -> list[Tensor]:
    """The inputs that have the type of the data."""
    return list(node.inputs[:1] if node.op in DATA_ONLY else node.inputs)


def _fits(values: np.ndarray) -> bool:
    finite = values[np.isfinite(values)].astype(np.float64)
    lost = np.linalg.norm(_rounded(finite) - finite)
    return bool(lost <= LOST * np.linalg.norm(finite) < np.inf)


def _rounded(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


class _Types:
    """The types of a graph's tensors, settled node by node in order; each tensor is cast once."""

    def __init__(self, fwd: Builder, kept: set[str]) -> None:
        self._fwd, self._kept = fwd, kept
        self._halves = dict[str, Tensor]()
        self._widened = dict[str, Tensor]()

    def settle(self, node: gs.Node, suits: bool) -> None:
        """Let a node that computes in float32 compute in float16 if that suits it."""
        results = [tensor for tensor in node.outputs if tensor.dtype == np.float32]
        halved = _data(node) if suits and results else []
        for i, tensor in enumerate(node.inputs):
            node.inputs[i] = self._half(tensor) if i < len(halved) else self._whole(tensor)
        for tensor in results if suits else ():
            self._halve(node, tensor)

    def _half(self, tensor: Tensor) -> Tensor:
        """What a node in float16 reads in its stead."""
        if tensor.dtype != np.float32:
            return tensor
        if tensor.name not in self._halves:
            name = self._fwd.fresh(f"{tensor.name}/fp16")
            self._halves[tensor.name] = (
                gs.Constant(name, _rounded(tensor.values))
                if isinstance(tensor, gs.Constant)
                else self._fwd.cast(tensor, np.float16, name)
            )
        return self._halves[tensor.name]

    def _whole(self, tensor: Tensor) -> Tensor:
        """What a node in float32 reads in its stead."""
        if tensor.name not in self._widened:
            return tensor
        if self._widened[tensor.name] is tensor:
            name = self._fwd.fresh(f"{tensor.name}/fp32")
            self._widened[tensor.name] = self._fwd.cast(tensor, np.float32, name)
        return self._widened[tensor.name]

    def _halve(self, node: gs.Node, tensor: gs.Variable) -> None:
        """Write the tensor in float16; under its name in float32 too, if others are to find it there."""
        if tensor.name not in self._kept:
            tensor.dtype = np.dtype(np.float16)
            self._widened[tensor.name] = tensor
            return
        name = self._fwd.fresh(f"{tensor.name}/fp16")
        half = self._halves[tensor.name] = gs.Variable(name, np.dtype(np.float16), tensor.shape)
        node.outputs[[each is tensor for each in node.outputs].index(True)] = half
        self._fwd.graph.nodes.append(gs.Node("Cast", name + "/cast", {"to": np.float32}, [half], [tensor]))


# ---------------------------------------------------------------- batch normalisation


def _settle_norms(fwd: Builder, kept: set[str]) -> None:
    """A factor and a summand in place of statistics, whose squares float16 may not hold.

    They go into the convolution before, as onnxruntime does it too, or become the scale and bias of a
    normalisation whose mean is 0 and whose variance is 1.
    """
    for norm in [node for node in fwd.graph.nodes if node.op == "BatchNormalization"]:
        held = all(isinstance(tensor, gs.Constant) for tensor in norm.inputs[1:])
        if not held or norm.outputs[0].dtype != np.float32 or norm.attrs.get("training_mode", 0):
            continue
        gamma, beta, mean, variance = (tensor.values.astype(np.float64) for tensor in norm.inputs[1:])
        factor = gamma / np.sqrt(variance + norm.attrs.get("epsilon", 1e-5))
        fwd.scope = norm.name
        if not _into_convolution(fwd, norm, factor, beta - mean * factor, kept):
            settled = factor, beta - mean * factor, np.zeros_like(mean), np.ones_like(mean)
            pairs = zip(norm.inputs[1:], settled, strict=True)
            norm.inputs = [norm.inputs[0], *(_constant(fwd, t, values) for t, values in pairs)]
            norm.attrs["epsilon"] = 0.0


def _into_convolution(
    fwd: Builder, norm: gs.Node, factor: np.ndarray, summand: np.ndarray, kept: set[str]
) -> bool:
    conv = producer(norm.inputs[0])
    if conv is None or conv.op != "Conv" or len(conv.outputs[0].outputs) > 1 or conv.outputs[0].name in kept:
        return False
    if not all(isinstance(tensor, gs.Constant) for tensor in conv.inputs[1:]):
        return False
    weight, *bias = conv.inputs[1:]
    values = weight.values * factor.reshape(-1, *[1] * (weight.values.ndim - 1))
    shift = sum((b.values * factor for b in bias), summand)
    conv.inputs = [conv.inputs[0], _constant(fwd, weight, values), _constant(fwd, norm.inputs[2], shift)]
    replace(norm, conv.outputs[0])
    return True


def _constant(fwd: Builder, instead: gs.Constant, values: np.ndarray) -> gs.Constant:
    return gs.Constant(fwd.fresh(f"{instead.name}/settled"), values.astype(np.float32))
