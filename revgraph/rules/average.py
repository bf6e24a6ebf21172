"""Reversing average pooling: affine, so each window's share returns to every element. Eq. (6)."""

import numpy as np

from revgraph import op
from revgraph.graph import Builder, Tensor, gs, static
from revgraph.rules.rule import Bottleneck, Rule, XHats, cannot_reverse, window
from revgraph.window import Window


def _size(fwd: Builder, pool: gs.Node) -> Bottleneck:
    """r = (size of x,)."""
    return (op.size(fwd, pool.inputs[0]),)


def _average(rev: Builder, pool: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat[v] = sum over the windows u that hold v of y_hat[u] / count(u)."""
    (size,) = r
    x, slide = pool.inputs[0], window(pool)
    channels = x.shape[1]
    share = op.scale(rev, y_hat, _shares(pool, slide).astype(y_hat.dtype))
    ones = np.ones((channels, 1, *slide.kernel), y_hat.dtype)
    return (op.conv_transposed(rev, share, ones, size, x, slide, group=channels),)


def _shares(pool: gs.Node, slide: Window) -> np.ndarray:
    """1 / count(u): (1, 1, *spatial of y), or one number where all windows are full."""
    size, outputs = pool.inputs[0].shape[2:], pool.outputs[0].shape[2:]
    padding = bool(pool.attrs.get("count_include_pad", 0))
    if not any((*slide.begin, *slide.end)) and not pool.attrs.get("ceil_mode", 0):
        return np.array(1 / np.prod(slide.kernel))
    if not static((*size, *outputs)):
        why = "its windows at the border differ, and the size of its input is known at run time only"
        raise cannot_reverse(pool, why, "give the model a fixed input size")
    return 1 / slide.counts(outputs, size, padding)[None, None]


def _global(rev: Builder, pool: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat[v] = y_hat / (number of positions), at every position."""
    (size,) = r
    x = pool.inputs[0]
    ones = np.ones(2, np.int64)
    if isinstance(size, gs.Constant):
        share = op.scale(rev, y_hat, np.array(1 / np.prod(x.shape[2:]), y_hat.dtype))
        target: Tensor | np.ndarray = np.concatenate([ones, size.values[0]])
    else:
        row = rev.emit("Gather", size, np.array(0), dtype=np.int64, shape=[len(x.shape) - 2])
        positions = rev.emit("ReduceProd", row, dtype=np.int64, shape=[], keepdims=0)
        divisor = rev.emit("CastLike", positions, y_hat, dtype=y_hat.dtype, shape=[])
        share = rev.emit("Div", y_hat, divisor, dtype=y_hat.dtype, shape=y_hat.shape)
        target = rev.emit("Concat", ones, row, dtype=np.int64, shape=[len(x.shape)], axis=0)
    shape = [y_hat.shape[0], *x.shape[1:]]
    return (rev.emit("Expand", share, target, dtype=y_hat.dtype, shape=shape),)


average = Rule("transposed", _average, _size)
global_average = Rule("transposed", _global, _size)
