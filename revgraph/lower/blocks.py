"""Blocks of channels, in which onnxruntime's CPU computes: what is in them, and what keeps it there."""

import numpy as np

from revgraph import op
from revgraph.graph import Builder, Tensor, computed_inputs, gs, producer, replace, sort, static, tidy
from revgraph.simplify import all_of, read_tap, taps_of

BLOCK = 16
"""Channels that a CPU with AVX-512 computes at once; a map of another number of them has the plain layout."""


def blockable(x: Tensor) -> bool:
    """Whether a CPU computes x in blocks of channels: float32 maps."""
    if x.dtype != np.float32 or x.shape is None:
        return False
    return len(x.shape) == 4 and static(x.shape[1:2]) and x.shape[1] % BLOCK == 0


BLOCKED = ("Add", "BatchNormalization", "Concat", "Dropout", "Identity", "Mul", "Relu", "Sub", "Sum")
"""Operators that keep blocks, if all that they read is in blocks but for constants, which get folded in."""


def in_blocks(x: Tensor) -> bool:
    """Whether a CPU has x in blocks, so far as the graph tells: of a tap, a penalty or a mask, it does."""
    waiting, seen = [x], set[str]()
    while waiting:
        tensor = waiting.pop()
        node = producer(tensor)
        if not blockable(tensor) or (node is None and tensor.name == "p"):
            return False
        if node is None or tensor.name in seen:
            continue
        seen.add(tensor.name)
        if node.op == "Conv":
            if node.attrs.get("group", 1) not in (1, tensor.shape[1]):
                return False
        elif node.op in BLOCKED or (node.op in ("MaxPool", "AveragePool") and len(node.outputs) == 1):
            waiting += computed_inputs(node)
        else:
            return False
    return True


# ---------------------------------------------------------------- masks


def penalise(fwd: Builder, rev: Builder) -> None:
    """Rectify(Gate(q, r)) becomes Rectify(q + a), a = 0 where r and about minus infinity elsewhere. Eq. (10).

    A convolution, a sum and a ReLU are one operation to a CPU, and a product is not. Without it DenseNet-121
    takes 1.10 of the time, ResNet-50 1.04.
    """
    masks = taps_of(fwd, "Mask")
    for rectify in all_of(rev, "Rectify"):
        gate = producer(rectify.inputs[0])
        mask = None if gate is None or gate.op != "Gate" else masks.get(gate.inputs[1].name)
        if gate is None or mask is None or not in_blocks(mask.inputs[0]):
            continue
        if gate.inputs[0].shape != gate.outputs[0].shape:  # what a maximum over whole axes spreads again
            continue
        fwd.scope = mask.name.removesuffix("/mask")
        penalty = read_tap(fwd, rev, op.penalty(fwd, mask.inputs[0]))
        rev.scope = rectify.name
        q = gate.inputs[0]
        rectify.inputs[0] = rev.emit("Add", q, penalty, dtype=q.dtype, shape=q.shape)


# ---------------------------------------------------------------- sums, products and concatenations


def compute_in_blocks(fwd: Builder, rev: Builder) -> None:
    """Sums of which a term is in blocks become convolutions, which take in one tensor each.

    One operand of a sum, difference or product in the plain layout takes it out of blocks, and all that
    follows: it comes in through a depthwise convolution of ones. Without it Inception v1 takes 1.15 of
    the time, v2 1.08.
    """
    for node in [node for node in rev.graph.nodes if _is_sum(node)]:
        total = node.outputs[0]
        if len(total.outputs) == 1 and _is_sum(total.outputs[0]):
            continue
        terms = _terms(node)
        if any(in_blocks(term) for term in terms):
            rev.scope = total.name
            replace(node, _chain(rev, terms, total))
    tidy(rev.graph)
    for node in [node for node in rev.graph.nodes if node.op in ("Mul", "Sub")]:
        if _of_one_shape(node) and any(map(in_blocks, node.inputs)):
            rev.scope = node.outputs[0].name
            node.inputs = [t if in_blocks(t) else _depthwise(rev, t, 1) for t in node.inputs]
            if node.op == "Sub":
                a, b = node.inputs
                like = {"dtype": a.dtype, "shape": node.outputs[0].shape}
                replace(node, rev.emit("Add", _depthwise(rev, b, -1), a, **like))
    tidy(rev.graph)


def concatenate_in_blocks(fwd: Builder, rev: Builder) -> None:
    """The same for what is concatenated: pools that give Indices leave blocks.

    Without it DenseNet-121 takes 1.03 of the time.
    """
    for node in [node for node in fwd.graph.nodes if node.op == "Concat" and node.attrs["axis"] == 1]:
        if all(map(blockable, node.inputs)) and any(map(in_blocks, node.inputs)):
            fwd.scope = node.outputs[0].name
            for i, tensor in enumerate(node.inputs):
                if not in_blocks(tensor):
                    node.inputs[i] = _depthwise(fwd, tensor, 1)
    sort(fwd.graph)


def _is_sum(node: gs.Node) -> bool:
    return node.op in ("Add", "Sum") and _of_one_shape(node)


def _of_one_shape(node: gs.Node) -> bool:
    """Whether it takes and gives float32 maps of one shape, but for the images, as one may serve all."""
    y = node.outputs[0]
    return blockable(y) and all(t.shape is not None and t.shape[1:] == y.shape[1:] for t in node.inputs)


def _terms(total: gs.Node) -> list[Tensor]:
    """What a sum adds, sums that nothing else reads among it."""
    terms, waiting = list[Tensor](), list(total.inputs)
    while waiting:
        tensor = waiting.pop(0)
        inner = producer(tensor)
        if inner is not None and _is_sum(inner) and len(tensor.outputs) == 1:
            waiting = [*inner.inputs, *waiting]
        else:
            terms.append(tensor)
    return terms


def _chain(rev: Builder, terms: list[Tensor], total: Tensor) -> gs.Variable:
    """First what other nodes write in blocks, then the plain, then the convolutions."""
    like = {"dtype": total.dtype, "shape": total.shape}
    held = [term for term in terms if in_blocks(term) and not _convolution(term)]
    found = held[0] if held else None
    for term in held[1:]:
        found = rev.emit("Add", found, term, **like)
    plain = [_depthwise(rev, term, 1) for term in terms if not in_blocks(term)]
    for conv in [*plain, *filter(_convolution, terms)]:
        found = conv if found is None else rev.emit("Add", conv, found, **like)
    return found


def _depthwise(builder: Builder, x: Tensor, factor: int) -> gs.Variable:
    weight = np.full((x.shape[1], 1, 1, 1), factor, x.dtype)
    return builder.emit("Conv", x, weight, dtype=x.dtype, shape=x.shape, group=len(weight))


def _convolution(x: Tensor) -> bool:
    """Whether a convolution computes x for one sum alone, and so can do the sum as well."""
    node = producer(x)
    return node is not None and node.op == "Conv" and len(x.outputs) == 1 and in_blocks(x)
