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
    factor = rev.cast(mask, y_hat.dtype)
    return rev.emit("Mul", y_hat, factor, dtype=y_hat.dtype, shape=gate.outputs[0].shape)


BOOL = Encoding(_greater, _multiply)
"""One bool per unit."""

# ---------------------------------------------------------------- in float32, for maps in blocks of channels

STEEP = np.float32(3e38)
"""Times any y > 3.3e-20 it is above -BELOW, and smaller ones count as zero; times any y > 3.3e-39 it is above
1, and of smaller ones, which are denormal, SaliNet passes a part."""
BELOW = np.float32(-1e19)
"""What a shut unit adds: more than any signal has."""


def _step(fwd: Builder, mask: gs.Node) -> Tensor:
    """r = clip(STEEP y, 0, 1)."""
    (y,) = mask.inputs
    return _clipped(fwd, y, np.float32(0), np.float32(0), np.float32(1))


def _scale(rev: Builder, gate: gs.Node) -> Tensor:
    """x_hat = y_hat * r, of which the convolution before it takes no notice."""
    y_hat, mask = gate.inputs
    return rev.emit("Mul", y_hat, mask, dtype=y_hat.dtype, shape=gate.outputs[0].shape)


FLOAT = Encoding(_step, _scale)
"""1 or 0 per unit."""


def penalty(fwd: Builder, tap: gs.Node) -> Tensor:
    """clip(STEEP y + BELOW, BELOW, 0), to be added: a sum in place of the gate, plain ONNX already."""
    (y,) = tap.inputs
    return _clipped(fwd, y, BELOW, BELOW, np.float32(0))


def _clipped(fwd: Builder, y: Tensor, bias: np.float32, low: np.float32, high: np.float32) -> Tensor:
    """A depthwise convolution with its activation."""
    channels = y.shape[1]
    weight, offset = np.full((channels, 1, 1, 1), STEEP), np.full(channels, bias)
    steep = fwd.emit("Conv", y, weight, offset, dtype=y.dtype, shape=y.shape, group=channels)
    return fwd.emit("Clip", steep, np.array(low), np.array(high), dtype=y.dtype, shape=y.shape)
