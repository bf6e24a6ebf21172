"""Reversing max pooling (MP in the paper): Eq. (9), or unpooling to the centre (Sect. 2.2)."""

from revgraph import op
from revgraph.graph import Builder, Tensor, gs
from revgraph.rules.rule import Bottleneck, Rule, XHats, cannot_reverse, window


def _size(fwd: Builder, pool: gs.Node) -> Bottleneck:
    """r = (size of x,): constant, and so nothing at all, unless the size is known at run time only."""
    return (op.size(fwd, pool.inputs[0]),)


def _switches(fwd: Builder, pool: gs.Node) -> Bottleneck:
    """r = (s(u|c, x), size of x)."""
    ceil_mode = pool.attrs.get("ceil_mode", 0)
    if len(pool.outputs) > 1 and pool.attrs.get("storage_order", 0):
        raise cannot_reverse(pool, "its Indices are column-major", "export it with storage_order 0")
    x, y = pool.inputs[0], pool.outputs[0]
    return (op.switches(fwd, x, y, window(pool), ceil_mode=ceil_mode), *_size(fwd, pool))


def _route(rev: Builder, pool: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat[v] = sum of y_hat[u] over s(u) = v."""
    switches, size = r
    return (op.unpool(rev, y_hat, switches, size, pool.inputs[0], window(pool)),)


def _centre(rev: Builder, pool: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = y_hat at each window's centre; a centre in the padding is dropped."""
    (size,) = r
    return (op.unpool_centre(rev, y_hat, size, pool.inputs[0], window(pool)),)


switches = Rule("MP^BP", _route, _switches)
centre = Rule("to centre", _centre, _size)
