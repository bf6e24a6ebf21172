"""Reversing normalisations that depend on the picture.

Local response normalisation (LRN) is the identity as in DeConvNet, or BP-reversed (Sect. 3.1); instance
normalisation is BP-reversed in all variants.
"""

import numpy as np

from revgraph import op
from revgraph.graph import Builder, Tensor, gs
from revgraph.rules.rule import Bottleneck, Rule, XHats, constant, unchanged


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
    """x_hat = gamma / s * (y_hat - mean(y_hat) - z mean(y_hat z)).

    z = (x - mean(x)) / s and s^2 = var(x) + epsilon, over the positions of one image's channel.
    """
    (x,) = r
    rank = len(x.shape)
    epsilon = np.array(norm.attrs.get("epsilon", 1e-5), x.dtype)
    gamma = constant(norm, 1, "scale").reshape(-1, *[1] * (rank - 2))

    def emit(operator: str, a: Tensor, b: Tensor | np.ndarray) -> gs.Variable:
        rows = y_hat if y_hat.shape[0] in (a.shape[0], b.shape[0]) else x
        return rev.emit(operator, a, b, dtype=x.dtype, shape=[rows.shape[0], *x.shape[1:]])

    def mean(a: Tensor) -> gs.Variable:
        shape = [*a.shape[:2], *[1] * (rank - 2)]
        return rev.emit("GlobalAveragePool", a, dtype=x.dtype, shape=shape)

    centred = emit("Sub", x, mean(x))
    mean_square = mean(emit("Mul", centred, centred))
    variance = rev.emit("Add", mean_square, epsilon, dtype=x.dtype, shape=mean_square.shape)
    deviation = rev.emit("Sqrt", variance, dtype=x.dtype, shape=variance.shape)
    z = emit("Div", centred, deviation)
    inner = emit("Sub", emit("Sub", y_hat, mean(y_hat)), emit("Mul", z, mean(emit("Mul", y_hat, z))))
    return (emit("Div", emit("Mul", inner, gamma.astype(x.dtype)), deviation),)


identity = Rule("1", unchanged)
bp = Rule("LRN^BP", _lrn_bp, _value)
instance_norm = Rule("BP", _instance_norm, _value)
