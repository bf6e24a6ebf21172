"""Reversing average pooling: affine, so each window's share returns to every element. Eq. (6)."""

import math

import numpy as np

from revgraph import op
from revgraph.graph import Builder, Shape, Tensor, gs, static
from revgraph.rules.axes import keep_axes, reduced_axes
from revgraph.rules.rule import MAX_KERNEL, Bottleneck, Rule, XHats, cannot_reverse, free_axis, window
from revgraph.rules.sizes import size_of_x
from revgraph.window import Window


def _average(rev: Builder, pool: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat[v] = sum over the windows u that hold v of y_hat[u] / count(u)."""
    (size,) = r
    x, slide = pool.inputs[0], window(pool)
    ones = np.ones((x.shape[1], 1, *slide.kernel), y_hat.dtype)
    share = _shared(rev, pool, y_hat, slide, size)
    return (op.conv_transposed(rev, share, ones, size, x, slide, group=x.shape[1]),)


def _shared(rev: Builder, pool: gs.Node, y_hat: Tensor, slide: Window, sizes: Tensor) -> Tensor:
    """y_hat[u] / count(u)."""
    size, outputs = pool.inputs[0].shape[2:], pool.outputs[0].shape[2:]
    padding = bool(pool.attrs.get("count_include_pad", 0))
    full = padding or not (slide.same or any((*slide.begin, *slide.end)))
    if full and not pool.attrs.get("ceil_mode", 0):
        return op.scale(rev, y_hat, np.array(1 / np.prod(slide.kernel), y_hat.dtype))
    if not static((*size, *outputs)):
        counts = _free_counts(rev, y_hat, slide, op.row(rev, sizes), padding)
        return rev.emit("Div", y_hat, counts, dtype=y_hat.dtype, shape=y_hat.shape)
    if math.prod(outputs) > MAX_KERNEL:
        raise cannot_reverse(pool, f"it has {math.prod(outputs):.3g} windows", "check the model")
    # A window wholly in the padding averages nothing, and gives nothing back.
    shares = 1 / np.maximum(slide.counts(outputs, size, padding), 1)[None, None]
    return op.scale(rev, y_hat, shares.astype(y_hat.dtype))


def _free_counts(rev: Builder, y_hat: Tensor, slide: Window, row: Tensor, padding: bool) -> Tensor:
    """count(u), at least 1: the pool's windows summed over ones, for sizes that only the run knows."""
    rank, dtype = len(slide.kernel), y_hat.dtype
    free: Shape = [1, 1, *[None] * rank]
    if padding:
        extra = np.add(slide.begin, slide.end)
        row = rev.emit("Add", row, extra, dtype=np.int64, shape=[rank])
    shape = rev.emit("Concat", np.array([1, 1]), row, dtype=np.int64, shape=[rank + 2], axis=0)
    ones = rev.emit("Expand", np.ones([1] * (rank + 2), dtype), shape, dtype=dtype, shape=free)
    attributes = slide.attributes
    if not slide.same:
        begin, end = ([0] * rank, [0] * rank) if padding else (slide.begin, slide.end)
        # With ceil_mode a window more may start; without, what is too much is cut off again.
        attributes["pads"] = [*begin, *(n + s - 1 for n, s in zip(end, slide.strides, strict=True))]
    sums = rev.emit(
        "Conv", ones, np.ones((1, 1, *slide.kernel), dtype), dtype=dtype, shape=free, **attributes
    )
    ends = rev.emit("Shape", y_hat, dtype=np.int64, shape=[rank], start=2)
    zeros, axes = np.zeros(rank, np.int64), np.arange(2, rank + 2)
    kept = rev.emit("Slice", sums, zeros, ends, axes, dtype=dtype, shape=free)
    return rev.emit("Max", kept, np.array(1, dtype), dtype=dtype, shape=free)


def _global(rev: Builder, pool: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat[v] = y_hat / (number of positions), at every position."""
    (size,) = r
    axes = list(range(2, len(pool.inputs[0].shape)))
    return (_spread(rev, pool, y_hat, axes, size, mean=True),)


def _reduce(rev: Builder, node: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """Every element that was summed gets y_hat, or its share of it."""
    axes = reduced_axes(node)
    if not axes:
        return (y_hat,)
    y_hat = keep_axes(rev, node, y_hat, axes)
    return (_spread(rev, node, y_hat, axes, *r, mean=node.op == "ReduceMean"),)


def _spread(
    rev: Builder, node: gs.Node, y_hat: Tensor, axes: list[int], size: Tensor | None = None, *, mean: bool
) -> Tensor:
    """y_hat, 1 along the axes, repeated along them to the shape of x, and divided by how often if `mean`."""
    x = node.inputs[0]
    shape = [y_hat.shape[0], *x.shape[1:]]
    if static([x.shape[axis] for axis in axes]):
        target: Tensor | np.ndarray = np.array([n if i in axes else 1 for i, n in enumerate(x.shape)])
        share = np.array(1 / max(np.prod([x.shape[axis] for axis in axes]), 1), y_hat.dtype)
        scaled = op.scale(rev, y_hat, share) if mean else y_hat
    elif 1 in axes and not isinstance(x.shape[1], int):
        raise free_axis(node, 1)
    else:
        # One number per axis of x: its size where it is reduced, 1 elsewhere.
        row = op.row(rev, size)
        head = np.array([1, x.shape[1] if 1 in axes else 1])
        sizes = rev.emit("Concat", head, row, dtype=np.int64, shape=[len(x.shape)], axis=0)
        mask = np.array([i in axes for i in range(len(x.shape))])
        target = rev.emit("Where", mask, sizes, np.array(1), dtype=np.int64, shape=[len(x.shape)])
        scaled = _divided(rev, y_hat, target) if mean else y_hat
    return rev.emit("Expand", scaled, target, dtype=y_hat.dtype, shape=shape)


def _divided(rev: Builder, y_hat: Tensor, sizes: Tensor) -> Tensor:
    count = rev.emit("ReduceProd", sizes, dtype=np.int64, shape=[], keepdims=0)
    divisor = rev.emit("CastLike", count, y_hat, dtype=y_hat.dtype, shape=[])
    return rev.emit("Div", y_hat, divisor, dtype=y_hat.dtype, shape=y_hat.shape)


average = Rule("transposed", _average, size_of_x)
global_average = Rule("transposed", _global, size_of_x)
reduce = Rule("transposed", _reduce, size_of_x)
