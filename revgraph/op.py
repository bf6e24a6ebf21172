"""The middle form: the paper's few operations as nodes, before any target decides how to compute them.

Taps stand in the forward graph and carry r; reversed layers stand in the reversed graph. Everything else
in both graphs is plain ONNX wiring. N is the batch, P the projections, D the number of spatial axes.
"""

import math
from typing import Any

import numpy as np

from revgraph.graph import DOMAIN, Builder, Shape, Tensor, gs, static
from revgraph.window import Window

# ---------------------------------------------------------------- taps: x -> r


def _tap(fwd: Builder, op: str, *inputs: Tensor, dtype: Any, shape: Shape, **attributes: Any) -> gs.Variable:
    name = fwd.fresh(f"{fwd.scope}/{op.lower()}")
    return fwd.emit(op, *inputs, dtype=dtype, shape=shape, name=name, domain=DOMAIN, **attributes)


TAPS = ("mask", "penalty", "switches", "slope", "value", "size")


def mask(fwd: Builder, y: Tensor) -> gs.Variable:
    """r = [y > 0]: bool, shaped like y. Eq. (7)."""
    return _tap(fwd, "Mask", y, dtype=bool, shape=y.shape)


def penalty(fwd: Builder, y: Tensor) -> gs.Variable:
    """r = 0 where y > 0, about minus infinity elsewhere, to be added before rectifying; like y."""
    return _tap(fwd, "Penalty", y, dtype=y.dtype, shape=y.shape)


def switches(fwd: Builder, x: Tensor, y: Tensor, window: Window, **attributes: Any) -> gs.Variable:
    """r = s(u|c, x): where in its plane each window's first maximum lies; int64, shaped like y. Eq. (8)."""
    return _tap(fwd, "Switches", x, y, dtype=np.int64, shape=y.shape, **window.attributes, **attributes)


def value(fwd: Builder, x: Tensor) -> gs.Variable:
    """r = x itself, for layers whose BP-reversal needs all of it."""
    return _tap(fwd, "Value", x, dtype=x.dtype, shape=x.shape)


def slope(fwd: Builder, derivative: Tensor) -> gs.Variable:
    """r = an activation's derivative at x, as the forward graph computes it; shaped like x."""
    return _tap(fwd, "Slope", derivative, dtype=derivative.dtype, shape=derivative.shape)


def size(fwd: Builder, x: Tensor) -> Tensor:
    """The spatial size of x: int64 (N, D), one equal row per image; a constant (1, D) where it is static."""
    spatial = x.shape[2:]
    if static(spatial):
        return gs.Constant(f"size/{'x'.join(map(str, spatial))}", np.array([spatial], np.int64))
    return _tap(fwd, "Size", x, dtype=np.int64, shape=[x.shape[0], len(spatial)])


def row(rev: Builder, size: Tensor) -> Tensor:
    """The spatial size of x, int64 (D,), out of what `size` gave."""
    if isinstance(size, gs.Constant):
        return gs.Constant(f"{size.name}/row", size.values[0])
    return rev.emit("Gather", size, np.array(0), dtype=np.int64, shape=[size.shape[1]])


# ---------------------------------------------------------------- reversed layers: (y_hat, r) -> x_hat


def _layer(rev: Builder, op: str, *inputs: Tensor, like: Tensor, **attributes: Any) -> gs.Variable:
    """A reversed layer whose x_hat is shaped like the forward tensor `like`, with P rows."""
    y_hat = inputs[0]
    shape = [y_hat.shape[0], *like.shape[1:]]
    return rev.emit(op, *inputs, dtype=y_hat.dtype, shape=shape, domain=DOMAIN, **attributes)


def conv_transposed(
    rev: Builder,
    y_hat: Tensor,
    weight: Tensor | np.ndarray,
    size: Tensor,
    like: Tensor,
    window: Window,
    group: int,
) -> gs.Variable:
    """vec x_hat = rho(F)^T vec y_hat. Eq. (6).

    Args:
        rev: The reversed graph.
        y_hat: (P, C_out, *spatial).
        weight: The forward convolution's own (C_out, C_in / group, *kernel).
        size: What `size` gave for x.
        like: x.
        window: The forward convolution's.
        group: The forward convolution's.
    """
    return _layer(rev, "ConvTransposed", y_hat, weight, size, like=like, group=group, **window.attributes)


def gemm_transposed(
    rev: Builder, y_hat: Tensor, weight: Tensor, like: Tensor, alpha: float = 1.0, transposed: bool = False
) -> gs.Variable:
    """x_hat = alpha * y_hat W^T for y = alpha * x W; `transposed` where that is x W^T. Eq. (6)."""
    return _layer(rev, "GemmTransposed", y_hat, weight, like=like, alpha=alpha, transB=int(transposed))


def gate(rev: Builder, y_hat: Tensor, mask: Tensor, like: Tensor | None = None) -> gs.Variable:
    """x_hat = y_hat * r, shaped like x where y_hat broadcasts to that. Eq. (7)."""
    return _layer(rev, "Gate", y_hat, mask, like=like or y_hat)


def rectify(rev: Builder, y_hat: Tensor) -> gs.Variable:
    """x_hat = max(y_hat, 0). Eq. (10)."""
    return _layer(rev, "Rectify", y_hat, like=y_hat)


def unpool(
    rev: Builder, y_hat: Tensor, switches: Tensor, size: Tensor, like: Tensor, window: Window
) -> gs.Variable:
    """x_hat[v] = sum of y_hat[u] over s(u) = v. Eq. (9)."""
    return _layer(rev, "Unpool", y_hat, switches, size, like=like, **window.attributes)


def unpool_centre(rev: Builder, y_hat: Tensor, size: Tensor, like: Tensor, window: Window) -> gs.Variable:
    """x_hat is y_hat at each window's centre, zero elsewhere. Sect. 2.2."""
    return _layer(rev, "UnpoolCentre", y_hat, size, like=like, **window.attributes)


def scale(rev: Builder, y_hat: Tensor, factor: Tensor | np.ndarray, most: float = math.inf) -> gs.Variable:
    """x_hat = y_hat * factor, which broadcasts to y_hat, and of which no element exceeds `most`."""
    return _layer(rev, "Scale", y_hat, factor, like=y_hat, most=most)
