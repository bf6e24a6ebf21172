"""Reversing max pooling (MP in the paper): Eq. (9), or unpooling to the centre (Sect. 2.2).

A maximum over whole axes is a pool whose window is all of them; one of several tensors chooses among them.
"""

import numpy as np

from revgraph import op
from revgraph.graph import Builder, Tensor, gs
from revgraph.rules import along
from revgraph.rules.axes import keep_axes, reduced_axes, unbroadcast
from revgraph.rules.rule import Bottleneck, Rule, XHats, cannot_reverse, free_axis, window
from revgraph.rules.sizes import free_size, size_of_x


def _switches(fwd: Builder, pool: gs.Node) -> Bottleneck:
    """r = (s(u|c, x), size of x)."""
    ceil_mode = pool.attrs.get("ceil_mode", 0)
    if len(pool.outputs) > 1 and pool.attrs.get("storage_order", 0):
        raise cannot_reverse(pool, "its Indices are column-major", "export it with storage_order 0")
    x, y = pool.inputs[0], pool.outputs[0]
    return (op.switches(fwd, x, y, window(pool), ceil_mode=ceil_mode), *size_of_x(fwd, pool))


def _route(rev: Builder, pool: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat[v] = sum of y_hat[u] over s(u) = v."""
    switches, size = r
    return (op.unpool(rev, y_hat, switches, size, pool.inputs[0], window(pool)),)


def _centre(rev: Builder, pool: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = y_hat at each window's centre; a centre in the padding is dropped."""
    (size,) = r
    return (op.unpool_centre(rev, y_hat, size, pool.inputs[0], window(pool)),)


# ---------------------------------------------------------------- over whole axes


def _axes(node: gs.Node) -> list[int]:
    return [*range(2, len(node.inputs[0].shape))] if node.op == "GlobalMaxPool" else reduced_axes(node)


def _first(fwd: Builder, node: gs.Node) -> Bottleneck:
    """r = [x is the first maximum, or minimum, over the axes]: bool, shaped like x. Eq. (8)."""
    x, axes = node.inputs[0], _axes(node)
    rank = len(x.shape)
    perm = [*(i for i in range(rank) if i not in axes), *axes]
    kept = rank - len(axes)
    moved = fwd.emit("Transpose", x, dtype=x.dtype, shape=[x.shape[i] for i in perm], perm=perm)
    shape = [*moved.shape[:kept], None]
    flat = fwd.emit("Reshape", moved, np.array([0] * kept + [-1]), dtype=x.dtype, shape=shape)
    arg = "ArgMin" if node.op == "ReduceMin" else "ArgMax"
    at = fwd.emit(arg, flat, dtype=np.int64, shape=[*shape[:-1], 1], axis=kept, keepdims=1)
    positions = along.count(fwd, along.length(fwd, flat, kept))
    equal = fwd.emit("Equal", at, positions, dtype=bool, shape=shape)
    hit = fwd.cast(equal, x.dtype)
    target = fwd.emit("Shape", moved, dtype=np.int64, shape=[rank])
    unflat = fwd.emit("Reshape", hit, target, dtype=x.dtype, shape=moved.shape)
    back = np.argsort(perm).tolist()
    return (op.mask(fwd, fwd.emit("Transpose", unflat, dtype=x.dtype, shape=x.shape, perm=back)),)


def _to_first(rev: Builder, node: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = y_hat where x is the first maximum, zero elsewhere."""
    (mask,) = r
    return (op.gate(rev, keep_axes(rev, node, y_hat, _axes(node)), mask, like=node.inputs[0]),)


def _to_middle(rev: Builder, node: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = y_hat at the middle of the axes."""
    x, axes = node.inputs[0], _axes(node)
    x_hat = keep_axes(rev, node, y_hat, axes)
    for i in axes:
        n = x.shape[i]
        matrix: Tensor | np.ndarray
        if isinstance(n, int):
            matrix = along.one_hot(node, [(n - 1) // 2], n, y_hat.dtype)
        elif i < 2:
            raise free_axis(node, i)
        else:
            (size,) = r
            length = along.size(rev, size, i)
            last = rev.emit("Sub", length, np.array(1), dtype=np.int64, shape=[1])
            middle = rev.emit("Div", last, np.array(2), dtype=np.int64, shape=[1])
            matrix = along.selection(rev, middle, length, y_hat.dtype)
        x_hat = along.transposed(rev, x_hat, i, matrix, n)
    return (x_hat,)


# ---------------------------------------------------------------- of several tensors


def _chosen(fwd: Builder, node: gs.Node) -> Bottleneck:
    """r = for each input, where it is the first that attains y: bool, shaped like y."""
    y, masks = node.outputs[0], []
    like = {"dtype": y.dtype, "shape": y.shape}
    free: Tensor | np.ndarray = np.array(1, y.dtype)
    for x in node.inputs:
        equal = fwd.emit("Equal", x, y, dtype=bool, shape=y.shape)
        hit = fwd.emit("Mul", fwd.cast(equal, y.dtype), free, **like)
        free = fwd.emit("Sub", free, hit, **like)
        masks.append(op.mask(fwd, hit))
    return tuple(masks)


def _to_chosen(rev: Builder, node: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = y_hat where x was chosen."""
    pairs = zip(node.inputs, r, strict=True)
    return tuple(
        None if isinstance(x, gs.Constant) else unbroadcast(rev, op.gate(rev, y_hat, mask), x)
        for x, mask in pairs
    )


switches = Rule("MP^BP", _route, _switches)
centre = Rule("to centre", _centre, size_of_x)
first = Rule("MP^BP", _to_first, _first)
middle = Rule("to centre", _to_middle, free_size)
chosen = Rule("MP^BP", _to_chosen, _chosen)
