"""Encodings of ReLU's bottleneck r = [x > 0]."""

import numpy as np

from revgraph.graph import Builder, Tensor, gs
from revgraph.lower.target import Encoding


def _greater(fwd: Builder, mask: gs.Node) -> Tensor:
    """r = y > 0."""
    (y,) = mask.inputs
    return fwd.emit("Greater", y, np.zeros((), y.dtype), dtype=bool, shape=y.shape)


def _multiply(rev: Builder, gate: gs.Node) -> Tensor:
    """x_hat = y_hat * r. Where would do it in one node, at five times the price on a CPU."""
    y_hat, mask = gate.inputs
    factor = rev.emit("Cast", mask, dtype=y_hat.dtype, shape=mask.shape, to=y_hat.dtype.type)
    return rev.emit("Mul", y_hat, factor, dtype=y_hat.dtype, shape=gate.outputs[0].shape)


BOOL = Encoding(_greater, _multiply)
"""One bool per unit."""
