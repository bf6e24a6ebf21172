"""Passes on the middle form that targets may ask for: the same numbers with fewer or smaller operations."""

from collections.abc import Callable

import numpy as np

from revgraph import op
from revgraph.graph import DOMAIN, Builder, Shape, Tensor, gs, producer, replace, tidy
from revgraph.window import Window

Pass = Callable[[Builder, Builder], None]


def simplify(passes: tuple[Pass, ...], fwd: Builder, rev: Builder) -> None:
    """Apply passes to the two graphs in place; taps that nothing reads any more go."""
    for each in passes:
        each(fwd, rev)
        _drop_unread_taps(fwd.graph, rev.graph)


def _drop_unread_taps(fwd: gs.Graph, rev: gs.Graph) -> None:
    tidy(rev)
    unread = {tap.name for tap in rev.inputs if not tap.outputs}
    rev.inputs = [tensor for tensor in rev.inputs if tensor.name not in unread]
    fwd.outputs = [tensor for tensor in fwd.outputs if tensor.name not in unread]
    tidy(fwd)


# ---------------------------------------------------------------- passes


def gate_before_unpool(fwd: Builder, rev: Builder) -> None:
    """Gate(Unpool(q), [y > 0]) becomes Unpool(Gate(q, [v > 0])) for v = MaxPool(y): fewer units to mask.

    An unpooled value lands where y is the maximum v, so the two masks say the same there, and what lies
    elsewhere is zero. LRN and the like between y and the pool keep signs. Without it SqueezeNet takes 1.03 of
    the time, VGG-19 1.02.
    """
    masks, pools = taps_of(fwd, "Mask"), taps_of(fwd, "Switches")
    for gate in all_of(rev, "Gate"):
        unpool, mask = producer(gate.inputs[0]), masks.get(gate.inputs[1].name)
        if unpool is None or unpool.op != "Unpool" or mask is None or len(unpool.outputs[0].outputs) != 1:
            continue
        switches = pools.get(unpool.inputs[1].name)
        if switches is None or not _same_signs(switches.inputs[0], mask.inputs[0]):
            continue
        q, v = unpool.inputs[0], switches.inputs[1]
        fwd.scope = rev.scope = v.inputs[0].name
        unpool.inputs[0] = op.gate(rev, q, read_tap(fwd, rev, op.mask(fwd, v)))
        replace(gate, unpool.outputs[0])


def rectify_before_unpool(fwd: Builder, rev: Builder) -> None:
    """Rectify(Unpool(q)) becomes Unpool(Rectify(q)) where no two windows meet: each number stays one.

    By itself within the noise; it brings the gate and its rectifier together for `blocks.penalise`.
    """
    for rectify in all_of(rev, "Rectify"):
        unpool = producer(rectify.inputs[0])
        if unpool is None or unpool.op != "Unpool" or len(unpool.outputs[0].outputs) != 1:
            continue
        if not Window.of(unpool.attrs).disjoint:
            continue
        rev.scope = rectify.name
        unpool.inputs[0] = op.rectify(rev, unpool.inputs[0])
        replace(rectify, unpool.outputs[0])


def slice_kernels(fwd: Builder, rev: Builder) -> None:
    """Slices of ConvTransposed's channels, as Concat's reversal takes them, become convolutions of their own.

    Each has its channels' part of the kernel: cutting a signal moves it, cutting a kernel costs nothing.
    What several convolutions add up to is cut term by term. Without it SqueezeNet takes 1.05 of the time.
    """
    for node in [node for node in rev.graph.nodes if _channels(node)]:
        whole = node.inputs[0]
        adder = producer(whole)
        terms = list(adder.inputs) if adder is not None and adder.op in ("Add", "Sum") else [whole]
        if not all(map(_channels, whole.outputs)) or not any(_cuttable(term, whole) for term in terms):
            continue
        rev.scope = node.name
        parts = [_cut(rev, node, term, whole) for term in terms]
        if adder is not None and len(parts) > 1:
            parts = [rev.emit(adder.op, *parts, dtype=whole.dtype, shape=node.outputs[0].shape)]
        replace(node, parts[0])


def _cuttable(term: Tensor, whole: Tensor) -> bool:
    conv = producer(term)
    if conv is None or conv.op != "ConvTransposed" or conv.attrs["group"] != 1:
        return False
    return isinstance(conv.inputs[1], gs.Constant) and (term is whole or len(term.outputs) == 1)


def _cut(rev: Builder, node: gs.Node, term: Tensor, whole: Tensor) -> gs.Variable:
    """What a Slice takes of one term."""
    like = {"dtype": term.dtype, "shape": node.outputs[0].shape}
    conv = producer(term)
    if conv is None or not _cuttable(term, whole):
        return rev.emit("Slice", term, *node.inputs[1:], **like)
    y_hat, weight, size = conv.inputs
    values = np.ascontiguousarray(weight.values[:, _channels(node)])
    kernel = gs.Constant(rev.fresh(f"{weight.name}/part"), values)
    return rev.emit(conv.op, y_hat, kernel, size, domain=DOMAIN, **like, **conv.attrs)


def _channels(node: gs.Node) -> slice | None:
    """The channels that a Slice with constant bounds takes, if it takes nothing else."""
    if (
        node.op != "Slice"
        or len(node.inputs) != 4
        or not all(isinstance(t, gs.Constant) for t in node.inputs[1:])
    ):
        return None
    start, end, axis = (tensor.values.item() for tensor in node.inputs[1:])
    return slice(start, end) if axis == 1 else None


def fold_scales(fwd: Builder, rev: Builder) -> None:
    """ConvTransposed(Scale(y_hat, s), W) becomes ConvTransposed(y_hat, s W): s scales W's output channels.

    Without it ResNet-50, Inception v2 and DenseNet-121 take 1.05 of the time.
    """
    for conv in all_of(rev, "ConvTransposed"):
        y_hat, weight = conv.inputs[:2]
        if not isinstance(weight, gs.Constant):
            continue
        values = weight.values
        while (scale := producer(y_hat)) is not None and _by_channel(scale):
            y_hat, factor = scale.inputs
            values = values * factor.values.reshape(-1, *[1] * (values.ndim - 1))
        if values is not weight.values:
            rev.scope = conv.name
            conv.inputs[0] = y_hat
            conv.inputs[1] = gs.Constant(rev.fresh(f"{weight.name}/scaled"), values.astype(weight.dtype))


def _by_channel(node: gs.Node) -> bool:
    """Whether it scales each channel by a constant."""
    if node.op != "Scale" or not isinstance(node.inputs[1], gs.Constant):
        return False
    return per_channel(node.inputs[1].values, node.outputs[0].shape)


def per_channel(factor: np.ndarray, shape: Shape | None) -> bool:
    """Whether a factor of a tensor (P, C, *spatial) is one number, or one for each channel."""
    if shape is None:
        return False
    dims = [1] * (len(shape) - factor.ndim) + list(factor.shape)
    return len(dims) == len(shape) and all(n == 1 for axis, n in enumerate(dims) if axis != 1)


# ---------------------------------------------------------------- the two graphs


def all_of(builder: Builder, operator: str) -> list[gs.Node]:
    return [node for node in builder.graph.nodes if node.domain == DOMAIN and node.op == operator]


def taps_of(fwd: Builder, operator: str) -> dict[str, gs.Node]:
    """The forward graph's taps of a kind, by what the reversed graph calls them."""
    return {node.outputs[0].name: node for node in all_of(fwd, operator)}


def read_tap(fwd: Builder, rev: Builder, tap: gs.Variable) -> gs.Variable:
    """Make a new tap an output of the forward graph, and the reversed graph's input."""
    fwd.graph.outputs.append(tap)
    tensor = gs.Variable(tap.name, tap.dtype, tap.shape)
    rev.graph.inputs.append(tensor)
    return tensor


def _same_signs(x: Tensor, y: Tensor) -> bool:
    """Whether x is y, or comes from it by layers that keep every sign."""
    while x is not y:
        node = producer(x)
        if node is None or node.op not in ("Identity", "LRN", "Dropout"):
            return False
        x = node.inputs[0]
    return True
