"""Reversing layers that take a part of x, or put x into something larger: Eq. (6), zeros elsewhere."""

import numpy as np

from revgraph.graph import Builder, Tensor, gs
from revgraph.rules.rule import Bottleneck, Rule, XHats, cannot_reverse, constant
from revgraph.rules.wiring import KEEP_BATCH

EVERYTHING = 2**31 - 1
"""Exporters write an end of at least this for "to the end"."""


def _pad(rev: Builder, pad: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """What was padded is cut off, and what was cut off is padded with zeros."""
    x = pad.inputs[0]
    pads = _all_axes(pad, constant(pad, 1, "padding"))
    mode = pad.attrs.get("mode", "constant")
    if mode != "constant" and max(pads) > 0:
        raise cannot_reverse(
            pad, f"it pads by {mode}", "pad with a constant, or choose --at before this node"
        )
    return (_crop_or_pad(rev, pad, y_hat, x, [-n for n in pads]),)


def _all_axes(pad: gs.Node, pads: np.ndarray) -> list[int]:
    """Pads of every axis, begins before ends; Pad may list some axes only."""
    rank = len(pad.inputs[0].shape)
    if len(pad.inputs) < 4 or pad.inputs[3].is_empty():
        return [int(n) for n in pads]
    found, axes = [0] * 2 * rank, constant(pad, 3, "list of axes")
    for i, axis in enumerate(axes):
        found[axis % rank], found[axis % rank + rank] = int(pads[i]), int(pads[i + len(axes)])
    return found


def _crop_or_pad(rev: Builder, node: gs.Node, y_hat: Tensor, x: Tensor, pads: list[int]) -> Tensor:
    """Pad with zeros, or crop where negative."""
    if pads[0] or pads[len(x.shape)]:
        raise cannot_reverse(node, "it changes the batch", KEEP_BATCH)
    shape = [y_hat.shape[0], *x.shape[1:]]
    return rev.emit("Pad", y_hat, np.array(pads), dtype=y_hat.dtype, shape=shape)


def _slice_back(rev: Builder, node: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """Zeros around the slice; with steps, between its elements too."""
    x, x_hat = node.inputs[0], y_hat
    rank = len(x.shape)
    pads = [0] * 2 * rank
    for axis, part in _slices(node).items():
        n = x.shape[axis]
        if part == slice(0, part.stop, 1) and part.stop >= EVERYTHING:
            continue
        if not isinstance(n, int):
            why = f"the size along axis {axis} is known at run time only"
            raise cannot_reverse(node, why, "give the model a fixed input size")
        taken = range(n)[part]
        if taken.step == 1:
            pads[axis], pads[axis + rank] = taken.start, n - taken.stop
        else:
            x_hat = _scatter_along(rev, x_hat, axis, list(taken), n)
    return (_crop_or_pad(rev, node, x_hat, x, pads) if any(pads) else x_hat,)


def _slices(node: gs.Node) -> dict[int, slice]:
    """The slice taken along each axis that the node names."""
    rank, given = (
        len(node.inputs[0].shape),
        [constant(node, i, "bound").tolist() for i in range(1, len(node.inputs))],
    )
    starts, ends = given[:2]
    axes = given[2] if len(given) > 2 else range(len(starts))
    steps = given[3] if len(given) > 3 else [1] * len(starts)
    found = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # A negative step runs to the first element where ONNX writes an end before it.
        stop = None if step < 0 and end < -node.inputs[0].shape[axis % rank] else end
        found[axis % rank] = slice(start, stop, step)
    return found


def _scatter_along(rev: Builder, y_hat: Tensor, axis: int, taken: list[int], n: int) -> Tensor:
    """Element i of y_hat goes to taken[i] among n zeros: Gather from y_hat with a zero put at its end."""
    m = len(taken)
    source = np.full(n, m)
    source[taken] = np.arange(m)
    pads = [0] * 2 * len(y_hat.shape)
    pads[axis + len(y_hat.shape)] = 1
    shape = [*y_hat.shape[:axis], m + 1, *y_hat.shape[axis + 1 :]]
    padded = rev.emit("Pad", y_hat, np.array(pads), dtype=y_hat.dtype, shape=shape)
    shape = [*y_hat.shape[:axis], n, *y_hat.shape[axis + 1 :]]
    return rev.emit("Gather", padded, source, dtype=y_hat.dtype, shape=shape, axis=axis)


def _gather(rev: Builder, gather: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """Elements go back to where they were read; those read twice add."""
    x, axis = gather.inputs[0], gather.attrs.get("axis", 0) % len(gather.inputs[0].shape)
    at, n = constant(gather, 1, "list of positions"), x.shape[axis]
    if axis == 0:
        raise cannot_reverse(gather, "it chooses images of the batch", KEEP_BATCH)
    if not isinstance(n, int) or at.ndim > 1:
        raise cannot_reverse(
            gather, f"its positions along axis {axis} are not a plain list", "use Slice instead"
        )
    if at.ndim == 0:
        shape = [*y_hat.shape[:axis], 1, *y_hat.shape[axis:]]
        y_hat = rev.emit("Unsqueeze", y_hat, np.array([axis]), dtype=y_hat.dtype, shape=shape)
    taken = (np.atleast_1d(at) % n).tolist()
    if len(set(taken)) < len(taken):
        raise cannot_reverse(gather, "it reads some positions twice", "use Concat of slices instead")
    return (_scatter_along(rev, y_hat, axis, taken, n),)


pad = Rule("cut off", _pad)
crop = Rule("pad with zeros", _slice_back)
gather = Rule("move back", _gather)
