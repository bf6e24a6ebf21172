"""Reversing normalisations that depend on the picture.

Local response normalisation (LRN) is the identity as in DeConvNet, or BP-reversed (Sect. 3.1); the others are
BP-reversed in all variants.
"""

from typing import Any

import numpy as np

from revgraph import op
from revgraph.graph import Builder, Tensor, gs
from revgraph.rules.axes import keep_axes, reduced_axes
from revgraph.rules.rule import Bottleneck, Rule, XHats, cannot_reverse, constant, free_axis, unchanged


def _value(fwd: Builder, lrn: gs.Node) -> Bottleneck:
    """r = x: with the exponent beta free, no smaller bottleneck gives the derivative."""
    return (op.value(fwd, lrn.inputs[0]),)


def _lrn_bp(rev: Builder, lrn: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """The derivative of y_c = x_c S_c^-beta.

    S_c = k + (alpha / n) sum of x_d^2 over the n channels d about c, so
    x_hat_d = y_hat_d S_d^-beta
              - 2 (alpha / n) beta x_d * sum over the c that see d of y_hat_c x_c S_c^(-beta - 1).
    """
    (x,) = r
    if not isinstance(x.shape[1], int):
        raise free_axis(lrn, 1)
    n = lrn.attrs["size"]
    alpha, beta = lrn.attrs.get("alpha", 1e-4), lrn.attrs.get("beta", 0.75)
    before, after = (n - 1) // 2, n // 2

    def emit(operator: str, a: Tensor, b: Tensor | float) -> gs.Variable:
        other = b if isinstance(b, gs.Variable) else np.array(b, x.dtype)
        rows = y_hat if a.shape[0] == y_hat.shape[0] else x
        return rev.emit(operator, a, other, dtype=x.dtype, shape=[rows.shape[0], *x.shape[1:]])

    # A mean that counts the padding is the sum over the window, divided by n.
    mean = _channel_mean(rev, emit("Mul", x, x), n, before, after)
    s = emit("Add", emit("Mul", mean, alpha), lrn.attrs.get("bias", 1.0))
    direct = emit("Mul", y_hat, emit("Pow", s, -beta))
    across = emit("Div", emit("Mul", direct, x), s)
    through = _channel_mean(rev, across, n, after, before)
    return (emit("Sub", direct, emit("Mul", emit("Mul", through, x), 2 * alpha * beta)),)


def _channel_mean(rev: Builder, x: Tensor, n: int, before: int, after: int) -> gs.Variable:
    """The sum over channels c - before .. c + after, divided by n; shaped like x."""
    rows, channels, *spatial = x.shape
    plane = rev.emit(
        "Reshape", x, np.array([0, 1, channels, -1]), dtype=x.dtype, shape=[rows, 1, channels, None]
    )
    mean = rev.emit(
        "AveragePool",
        plane,
        dtype=x.dtype,
        shape=plane.shape,
        kernel_shape=[n, 1],
        pads=[before, 0, after, 0],
        count_include_pad=1,
    )
    shape = rev.emit("Shape", x, dtype=np.int64, shape=[len(x.shape)])
    return rev.emit("Reshape", mean, shape, dtype=x.dtype, shape=[rows, channels, *spatial])


def _instance_norm(rev: Builder, norm: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """`_standardised` over the positions of one image's channel."""
    (x,) = r
    rank = len(x.shape)
    gamma = constant(norm, 1, "scale").reshape(-1, *[1] * (rank - 2))
    return (_standardised(rev, x, op.scale(rev, y_hat, gamma), [*range(2, rank)], norm),)


def _layer_norm(rev: Builder, norm: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """`_standardised` over all axes from the given one on."""
    (x,) = r
    axes = [*range(norm.attrs.get("axis", -1) % len(x.shape), len(x.shape))]
    if axes[0] == 0:
        raise cannot_reverse(norm, "it normalises over the batch", "normalise each image by itself")
    return (_standardised(rev, x, op.scale(rev, y_hat, constant(norm, 1, "scale")), axes, norm),)


def _group_norm(rev: Builder, norm: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """`_standardised` over the positions and channels of one image's group."""
    (x,) = r
    if not isinstance(x.shape[1], int):
        raise free_axis(norm, 1)
    rank, groups, gamma = len(x.shape), norm.attrs["num_groups"], constant(norm, 1, "scale")
    # Before opset 21 there is one scale per group.
    gamma = np.repeat(gamma, x.shape[1] // len(gamma)).reshape(-1, *[1] * (rank - 2))

    def grouped(t: Tensor) -> Tensor:
        target, shape = np.array([0, groups, -1]), [t.shape[0], groups, None]
        return rev.emit("Reshape", t, target, dtype=x.dtype, shape=shape)

    x_hat = _standardised(rev, grouped(x), grouped(op.scale(rev, y_hat, gamma)), [2], norm)
    shape = rev.emit("Shape", y_hat, dtype=np.int64, shape=[rank])
    return (rev.emit("Reshape", x_hat, shape, dtype=x.dtype, shape=[y_hat.shape[0], *x.shape[1:]]),)


def _standardised(rev: Builder, x: Tensor, z_hat: Tensor, axes: list[int], norm: gs.Node) -> Tensor:
    """x_hat = (z_hat - mean(z_hat) - z mean(z_hat z)) / s.

    z = (x - mean(x)) / s and s^2 = var(x) + epsilon, over the axes.
    """
    epsilon = np.array(norm.attrs.get("epsilon", 1e-5), x.dtype)

    def emit(operator: str, a: Tensor, b: Tensor) -> gs.Variable:
        rows = z_hat if z_hat.shape[0] in (a.shape[0], b.shape[0]) else x
        return rev.emit(operator, a, b, dtype=x.dtype, shape=[rows.shape[0], *x.shape[1:]])

    def mean(a: Tensor) -> gs.Variable:
        return rev.reduce("ReduceMean", a, axes, keepdims=1)

    centred = emit("Sub", x, mean(x))
    mean_square = mean(emit("Mul", centred, centred))
    variance = rev.emit("Add", mean_square, epsilon, dtype=x.dtype, shape=mean_square.shape)
    deviation = rev.emit("Sqrt", variance, dtype=x.dtype, shape=variance.shape)
    z = emit("Div", centred, deviation)
    inner = emit("Sub", emit("Sub", z_hat, mean(z_hat)), emit("Mul", z, mean(emit("Mul", z_hat, z))))
    return emit("Div", inner, deviation)


def _l2(rev: Builder, norm: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = y_hat x / y for y = sqrt(sum of x^2), and 0 where y is."""
    (x,) = r
    axes = reduced_axes(norm)
    y_hat = keep_axes(rev, norm, y_hat, axes) if axes else y_hat
    like: dict[str, Any] = {"dtype": x.dtype, "shape": [x.shape[0], *y_hat.shape[1:]]}
    square = rev.emit("Mul", x, x, dtype=x.dtype, shape=x.shape)
    total = rev.emit("ReduceSum", square, np.array(axes), keepdims=1, **like) if axes else square
    y = rev.emit("Sqrt", total, **like)
    none = rev.emit("Equal", y, np.array(0, x.dtype), dtype=bool, shape=y.shape)
    share = rev.emit("Where", none, np.array(0, x.dtype), rev.emit("Reciprocal", y, **like), **like)
    shape = [y_hat.shape[0], *x.shape[1:]]
    scaled = rev.emit("Mul", y_hat, share, dtype=x.dtype, shape=y_hat.shape)
    return (rev.emit("Mul", scaled, x, dtype=x.dtype, shape=shape),)


identity = Rule("1", unchanged)
bp = Rule("LRN^BP", _lrn_bp, _value)
group_norm = Rule("BP", _group_norm, _value)
instance_norm = Rule("BP", _instance_norm, _value)
l2 = Rule("BP", _l2, _value)
layer_norm = Rule("BP", _layer_norm, _value)
