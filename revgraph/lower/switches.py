"""Encodings of max pooling's bottleneck: where each window's maximum lies."""

import math

import numpy as np

from revgraph import op
from revgraph.graph import Builder, Tensor, gs, static
from revgraph.lower.target import Encoding
from revgraph.window import Window


def _plane_positions(fwd: Builder, switches: gs.Node) -> Tensor:
    """MaxPool's Indices less where their plane begins.

    The Indices count over the whole batch, so those of a batch would not be those of its images.
    """
    x, y = switches.inputs
    pool = y.inputs[0]
    if len(pool.outputs) == 1:
        pool.attrs.pop("storage_order", None)  # it orders the Indices, which nobody read so far
        pool.outputs.append(gs.Variable(f"{switches.name}/indices", np.dtype(np.int64), y.shape))
    indices = pool.outputs[1]
    plane = np.array(math.prod(x.shape[2:])) if static(x.shape[2:]) else _plane(fwd, x)
    first = _first_of_planes(fwd, fwd.emit("Shape", y, dtype=np.int64, shape=[1], start=0, end=1), plane, y)
    return fwd.emit("Sub", indices, first, dtype=np.int64, shape=y.shape)


def _plane(fwd: Builder, x: Tensor) -> Tensor:
    """Elements of a plane of x, one number."""
    spatial = fwd.emit("Shape", x, dtype=np.int64, shape=[len(x.shape) - 2], start=2)
    return fwd.emit("ReduceProd", spatial, dtype=np.int64, shape=[], keepdims=0)


def _first_of_planes(builder: Builder, batch: Tensor, plane: Tensor | np.ndarray, like: Tensor) -> Tensor:
    """Where each plane begins in the whole batch: int64 (N, C, 1, ...) for `like` (N, C, ...)."""
    rows, channels, *spatial = like.shape
    planes = builder.emit("Mul", batch, np.array([channels]), dtype=np.int64, shape=[1])
    count = builder.emit("Squeeze", planes, dtype=np.int64, shape=[])
    order = builder.emit("Range", np.array(0), count, np.array(1), dtype=np.int64, shape=[None])
    first = builder.emit("Mul", order, plane, dtype=np.int64, shape=[None])
    ones = [1] * len(spatial)
    corner = np.array([-1, channels, *ones])
    return builder.emit("Reshape", first, corner, dtype=np.int64, shape=[rows, channels, *ones])


def _unpool(rev: Builder, unpool: gs.Node) -> Tensor:
    """MaxUnpool where no two windows can choose one element; it overwrites, so elsewhere scatter and add."""
    y_hat = unpool.inputs[0]
    way = _max_unpool if Window.of(unpool.attrs).disjoint and y_hat.dtype != np.float64 else _scatter_add
    if y_hat.dtype != np.float16:
        return way(rev, unpool, y_hat)
    # onnxruntime's CPU cannot scatter and add float16, and sums are better kept in float32 anyway.
    x_hat = way(rev, unpool, rev.cast(y_hat, np.float32))
    return rev.cast(x_hat, np.float16)


def _scatter_add(rev: Builder, unpool: gs.Node, y_hat: Tensor) -> Tensor:
    """x_hat[v] = sum of y_hat[u] over s(u) = v, plane by plane."""
    _, positions, size = unpool.inputs
    rows, channels, *spatial = unpool.outputs[0].shape
    flat, dtype = np.array([0, channels, -1]), y_hat.dtype
    values = rev.emit("Reshape", y_hat, flat, dtype=dtype, shape=[rows, channels, None])
    at = rev.emit("Reshape", positions, flat, dtype=np.int64, shape=[positions.shape[0], channels, None])
    # P projections of one image share its switches.
    shape = rev.emit("Shape", values, dtype=np.int64, shape=[3])
    at = rev.emit("Expand", at, shape, dtype=np.int64, shape=values.shape)
    batch, dims = _batch(rev, y_hat), op.row(rev, size)
    plane = rev.emit("ReduceProd", dims, dtype=np.int64, shape=[1], keepdims=1)
    empty = rev.emit("Concat", batch, np.array([channels]), plane, dtype=np.int64, shape=[3], axis=0)
    zeros = rev.emit("Expand", np.zeros((1, 1, 1), dtype), empty, dtype=dtype, shape=[rows, channels, None])
    x_hat = rev.emit(
        "ScatterElements", zeros, at, values, dtype=dtype, shape=zeros.shape, axis=2, reduction="add"
    )
    target = rev.emit(
        "Concat", np.array([0, channels]), dims, dtype=np.int64, shape=[len(spatial) + 2], axis=0
    )
    return rev.emit("Reshape", x_hat, target, dtype=dtype, shape=[rows, channels, *spatial])


def _max_unpool(rev: Builder, unpool: gs.Node, y_hat: Tensor) -> Tensor:
    """The same where windows are disjoint; MaxUnpool's indices count over the whole batch again."""
    _, positions, size = unpool.inputs
    rows, channels, *spatial = unpool.outputs[0].shape
    batch, dims = _batch(rev, y_hat), op.row(rev, size)
    plane = rev.emit("ReduceProd", dims, dtype=np.int64, shape=[], keepdims=0)
    first, ones = _first_of_planes(rev, batch, plane, unpool.outputs[0]), [1] * len(spatial)
    at = rev.emit("Add", first, positions, dtype=np.int64, shape=y_hat.shape)
    target = rev.emit(
        "Concat", batch, np.array([channels]), dims, dtype=np.int64, shape=[len(spatial) + 2], axis=0
    )
    # It places by index alone; windows of one element keep it from guessing a size out of pads and dilations.
    shape = [rows, channels, *spatial]
    x_hat = rev.emit(
        "MaxUnpool", y_hat, at, target, dtype=y_hat.dtype, shape=shape, kernel_shape=ones, strides=ones
    )
    # Of MaxUnpool onnxruntime infers no shape, and fuses no sum with another that it does not know.
    return rev.emit("Reshape", x_hat, target, dtype=y_hat.dtype, shape=shape)


def _batch(rev: Builder, y_hat: Tensor) -> Tensor:
    """int64 (1,): P."""
    return rev.emit("Shape", y_hat, dtype=np.int64, shape=[1], start=0, end=1)


PLANE = Encoding(_plane_positions, _unpool)
"""int64 positions in the row-major plane of the same image and channel."""
