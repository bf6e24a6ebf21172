"""Reversing layers that only move numbers: the same numbers move back. All are linear, so Eq. (6) holds."""

import itertools
import math
from functools import partial

import numpy as np

from revgraph import op
from revgraph.graph import Builder, Tensor, gs, static
from revgraph.rules import along
from revgraph.rules.axes import unbroadcast
from revgraph.rules.rule import (
    KEEP_BATCH,
    Bottleneck,
    Rule,
    XHats,
    cannot_reverse,
    constant,
    free_axis,
    unchanged,
)
from revgraph.rules.sizes import size_of_x


def _dropout(rev: Builder, dropout: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = y_hat: outside training, dropout does nothing."""
    if len(dropout.inputs) > 2 and constant(dropout, 2, "training_mode"):
        raise cannot_reverse(dropout, "it is in training mode", "export the model for inference")
    return (y_hat,)


def _add(rev: Builder, add: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = y_hat for every term, summed over the axes that the term was broadcast along."""
    return tuple(unbroadcast(rev, y_hat, x) for x in add.inputs)


def _concat_sizes(fwd: Builder, concat: gs.Node) -> Bottleneck:
    """r = the sizes of all inputs, where only the run knows them along the axis."""
    i = concat.attrs["axis"] % len(concat.outputs[0].shape)
    return (
        () if static([x.shape[i] for x in concat.inputs]) else tuple(op.size(fwd, x) for x in concat.inputs)
    )


def _concat(rev: Builder, concat: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """Each input's x_hat is its slice of y_hat."""
    i = concat.attrs["axis"] % len(concat.outputs[0].shape)
    if i == 0:
        raise cannot_reverse(concat, "it joins images along the batch", KEEP_BATCH)
    if r and i == 1:
        raise free_axis(concat, i)
    if r:
        lengths = [along.size(rev, size, i) for size in r]
        starts = [np.array([0]), *itertools.accumulate(lengths, partial(_plus, rev))]
    else:
        starts = list(np.cumsum([0, *(x.shape[i] for x in concat.inputs)])[:, None])
    return tuple(
        rev.emit(
            "Slice", y_hat, start, end, np.array([i]), dtype=y_hat.dtype, shape=[y_hat.shape[0], *x.shape[1:]]
        )
        for x, (start, end) in zip(concat.inputs, itertools.pairwise(starts), strict=True)
    )


def _plus(rev: Builder, a: Tensor, b: Tensor) -> Tensor:
    return rev.emit("Add", a, b, dtype=np.int64, shape=[1])


def _transpose(rev: Builder, transpose: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """The inverse permutation."""
    x = transpose.inputs[0]
    perm = transpose.attrs.get("perm", list(reversed(range(len(x.shape)))))
    if perm[0] != 0:
        raise cannot_reverse(transpose, "it moves the batch off the first axis", KEEP_BATCH)
    shape, inverse = [y_hat.shape[0], *x.shape[1:]], np.argsort(perm).tolist()
    return (rev.emit("Transpose", y_hat, dtype=y_hat.dtype, shape=shape, perm=inverse),)


def _reshape(rev: Builder, reshape: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """The shape of x again."""
    (size,), x, y = r, reshape.inputs[0], reshape.outputs[0]
    if not static(x.shape[1:2]):
        raise cannot_reverse(
            reshape, f"the shape of '{x.name}' is known at run time only", "fix the input size"
        )
    if not _keeps_batch(reshape, x, y):
        why = f"it turns {x.shape} into {y.shape}, mixing the images of a batch"
        raise cannot_reverse(reshape, why, KEEP_BATCH)
    return (_reshape_to(rev, y_hat, x, size),)


def _keeps_batch(reshape: gs.Node, x: Tensor, y: Tensor) -> bool:
    if reshape.op == "Flatten":
        return int(reshape.attrs.get("axis", 1)) % len(x.shape) == 1
    if x.shape[0] is not None and x.shape[0] == y.shape[0]:
        return True  # as many elements in all, and so in each image
    if static(x.shape[1:]) and static(y.shape[1:]):
        return bool(math.prod(x.shape[1:]) == math.prod(y.shape[1:]))
    target = reshape.inputs[1]
    # With sizes unknown only the batch may be copied and all the rest flattened.
    flattens: bool = isinstance(target, gs.Constant) and target.values.tolist() in ([0, -1], [x.shape[0], -1])
    return flattens


def _reshape_to(rev: Builder, y_hat: Tensor, x: Tensor, size: Tensor) -> Tensor:
    """y_hat in the shape of x; `size` has the spatial part where that is known at run time only."""
    shape = [y_hat.shape[0], *x.shape[1:]]
    if static(x.shape[1:]):
        target: Tensor | np.ndarray = np.array([-1, *x.shape[1:]])
    else:
        row = op.row(rev, size)
        head = np.array([-1, x.shape[1]])
        target = rev.emit("Concat", head, row, dtype=np.int64, shape=[len(x.shape)], axis=0)
    return rev.emit("Reshape", y_hat, target, dtype=y_hat.dtype, shape=shape)


def _squeeze(rev: Builder, node: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """Squeeze and Unsqueeze undo each other."""
    x, y = node.inputs[0], node.outputs[0]
    longer, opposite = (x, "Unsqueeze") if node.op == "Squeeze" else (y, "Squeeze")
    given = len(node.inputs) > 1 and not node.inputs[1].is_empty()
    ones = [i for i, n in enumerate(x.shape) if n == 1]
    named = constant(node, 1, "list of axes").ravel().tolist() if given else ones
    axes = np.array([axis % len(longer.shape) for axis in named])
    if 0 in axes:
        raise cannot_reverse(node, "it moves the batch off the first axis", KEEP_BATCH)
    shape = [y_hat.shape[0], *x.shape[1:]]
    return (rev.emit(opposite, y_hat, axes, dtype=y_hat.dtype, shape=shape),)


def _expand(rev: Builder, expand: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """The sum over what was repeated."""
    return (unbroadcast(rev, y_hat, expand.inputs[0]),)


def _condition(fwd: Builder, where: gs.Node) -> Bottleneck:
    """r = the condition, where the run computes it."""
    condition, y = where.inputs[0], where.outputs[0]
    if isinstance(condition, gs.Constant):
        return ()
    if condition.shape is None or len(condition.shape) != len(y.shape) or condition.shape[0] != y.shape[0]:
        why = f"its condition is shaped {condition.shape}"
        raise cannot_reverse(where, why, "give it the batch axis, or make it a constant")
    return (op.mask(fwd, fwd.cast(condition, y.dtype)),)


def _where(rev: Builder, where: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """y_hat goes to the one that was taken."""
    condition, a, b = where.inputs
    a_hat = op.gate(rev, y_hat, *r) if r else op.scale(rev, y_hat, condition.values.astype(y_hat.dtype))
    b_hat = rev.emit("Sub", y_hat, a_hat, dtype=y_hat.dtype, shape=y_hat.shape)
    return (None, unbroadcast(rev, a_hat, a), unbroadcast(rev, b_hat, b))


def _cast(rev: Builder, cast: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = y_hat, in the dtype of x where that is floating-point."""
    x, y = cast.inputs[0], cast.outputs[0]
    if np.issubdtype(x.dtype, np.floating) and not np.issubdtype(y.dtype, np.floating):
        raise cannot_reverse(cast, f"it rounds to {y.dtype}", "choose --at before this node")
    if x.dtype == y_hat.dtype or not np.issubdtype(x.dtype, np.floating):
        return (y_hat,)
    return (rev.cast(y_hat, x.dtype),)


def _depth_to_space(rev: Builder, node: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """SpaceToDepth, and the channels in the order that the mode asks for."""
    block, x = node.attrs["blocksize"], node.inputs[0]
    shape = [y_hat.shape[0], *x.shape[1:]]
    x_hat = rev.emit("SpaceToDepth", y_hat, dtype=y_hat.dtype, shape=shape, blocksize=block)
    if node.attrs.get("mode", "DCR") == "DCR":
        return (x_hat,)
    if not isinstance(x.shape[1], int):
        raise free_axis(node, 1)
    # SpaceToDepth puts the block before the channel; CRD has it after.
    order = np.arange(x.shape[1]).reshape(block * block, -1).T.ravel()
    return (rev.emit("Gather", x_hat, order, dtype=y_hat.dtype, shape=shape, axis=1),)


def _space_to_depth(rev: Builder, node: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """DepthToSpace."""
    shape = [y_hat.shape[0], *node.inputs[0].shape[1:]]
    block = node.attrs["blocksize"]
    return (rev.emit("DepthToSpace", y_hat, dtype=y_hat.dtype, shape=shape, blocksize=block),)


identity = Rule("1", unchanged)
dropout = Rule("1", _dropout)
add = Rule("copy", _add)
concat = Rule("slice", _concat, _concat_sizes)
transpose = Rule("transpose back", _transpose)
reshape = Rule("reshape back", _reshape, size_of_x)
squeeze = Rule("reshape back", _squeeze)
expand = Rule("sum", _expand)
cast = Rule("1", _cast)
where = Rule("to the one taken", _where, _condition)
depth_to_space = Rule("move back", _depth_to_space)
space_to_depth = Rule("move back", _space_to_depth)
