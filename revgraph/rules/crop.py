"""Reversing layers that take a part of x, or put x into something larger: Eq. (6), zeros elsewhere."""

from typing import Any

import numpy as np

from revgraph.graph import Builder, Tensor, gs
from revgraph.rules import along
from revgraph.rules.rule import KEEP_BATCH, Bottleneck, Rule, XHats, cannot_reverse, constant, free_axis
from revgraph.rules.sizes import free_size

EVERYTHING = 2**31 - 1
"""Exporters write an end of at least this for "to the end"."""


def _pad(rev: Builder, pad: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """What was padded is cut off, or adds where it was read from; what was cut off is padded with zeros."""
    x = pad.inputs[0]
    pads = _all_axes(pad, constant(pad, 1, "padding"))
    mode = pad.attrs.get("mode", "constant")
    if mode == "constant" or max(pads) <= 0:
        return (_crop_or_pad(rev, pad, y_hat, x, [-n for n in pads]),)
    if pads[0] or pads[len(x.shape)]:
        raise cannot_reverse(pad, "it changes the batch", KEEP_BATCH)
    x_hat = y_hat
    for i in range(1, len(x.shape)):
        if (begin := pads[i]) or pads[i + len(x.shape)]:
            if i < 2 and not isinstance(x.shape[i], int):
                raise free_axis(pad, i)
            x_hat = _fold(rev, pad, x_hat, i, (begin, pads[i + len(x.shape)]), mode, *r)
    return (x_hat,)


def _fold(
    rev: Builder,
    node: gs.Node,
    y_hat: Tensor,
    i: int,
    pads: tuple[int, int],
    mode: Any,
    size: Tensor | None = None,
) -> Tensor:
    """Along axis i each element of y_hat goes to the one that padding copied it from."""
    n = node.inputs[0].shape[i]
    if isinstance(n, int):
        along.check_size(node, n + sum(pads), n)
        kept = slice(max(-pads[0], 0), n + min(pads[1], 0))
        padded = np.pad(np.arange(n)[kept], [max(pad, 0) for pad in pads], mode)
        return along.transposed(rev, y_hat, i, along.one_hot(node, padded, n, y_hat.dtype), n)
    length = along.size(rev, size, i)
    at = rev.emit("Pad", along.count(rev, length), np.array(pads), dtype=np.int64, shape=[None], mode=mode)
    return along.transposed(rev, y_hat, i, along.selection(rev, at, length, y_hat.dtype), n)


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
    for i, part in _slices(node).items():
        n = x.shape[i]
        if part == slice(0, part.stop, 1) and part.stop >= EVERYTHING:
            continue
        if not isinstance(n, int):
            x_hat = _slice_back_free(rev, node, x_hat, i, part, r)
        elif (taken := range(n)[part]).step == 1:
            pads[i], pads[i + rank] = taken.start, n - taken.start - len(taken)
        else:
            x_hat = along.transposed(rev, x_hat, i, along.one_hot(node, taken, n, y_hat.dtype), n)
    return (_crop_or_pad(rev, node, x_hat, x, pads) if any(pads) else x_hat,)


def _slice_back_free(
    rev: Builder, node: gs.Node, y_hat: Tensor, i: int, part: slice, r: Bottleneck
) -> Tensor:
    """The same along an axis whose size only the run knows: how long the slice is tells y_hat."""
    if i < 2 or part.step < 0:
        raise free_axis(node, i)
    (size,) = r
    n, m = along.size(rev, size, i), along.length(rev, y_hat, i)
    start: Tensor | np.ndarray = np.array([part.start])
    if part.start < 0:
        start = rev.emit("Max", _add(rev, n, start), np.array([0]), dtype=np.int64, shape=[1])
    if part.step == 1:
        end = rev.emit("Sub", n, _add(rev, start, m), dtype=np.int64, shape=[1])
        return along.pad(rev, y_hat, i, start, end, node.inputs[0].shape[i])
    steps = rev.emit("Mul", along.count(rev, m), np.array(part.step), dtype=np.int64, shape=[None])
    matrix = along.selection(rev, _add(rev, steps, start), n, y_hat.dtype)
    return along.transposed(rev, y_hat, i, matrix, node.inputs[0].shape[i])


def _add(rev: Builder, a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> Tensor:
    """The sum of two lists of numbers, one of which may have one element."""
    shapes = [list(t.shape) for t in (a, b)]
    return rev.emit("Add", a, b, dtype=np.int64, shape=next((s for s in shapes if s != [1]), [1]))


def _slices(node: gs.Node) -> dict[int, slice]:
    """The slice taken along each axis that the node names."""
    rank, given = (
        len(node.inputs[0].shape),
        [constant(node, i, "bound").tolist() for i in range(1, len(node.inputs))],
    )
    starts, ends = given[:2]
    axes = given[2] if len(given) > 2 else range(len(starts))
    steps = given[3] if len(given) > 3 else [1] * len(starts)
    bounds = map(slice, starts, ends, steps)
    return {axis % rank: part for axis, part in zip(axes, bounds, strict=True)}


def _gather(rev: Builder, gather: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """Elements go back to where they were read; those read twice add."""
    x = gather.inputs[0]
    i, at = gather.attrs.get("axis", 0) % len(x.shape), constant(gather, 1, "list of positions")
    n = x.shape[i]
    if i == 0:
        raise cannot_reverse(gather, "it chooses images of the batch", KEEP_BATCH)
    if at.ndim > 1 or (i < 2 and not isinstance(n, int)):
        raise cannot_reverse(
            gather, f"its positions along axis {i} are not a plain list", "use Slice instead"
        )
    if at.ndim == 0:
        shape = [*y_hat.shape[:i], 1, *y_hat.shape[i:]]
        y_hat = rev.emit("Unsqueeze", y_hat, np.array([i]), dtype=y_hat.dtype, shape=shape)
    at = np.atleast_1d(at).astype(np.int64)
    if isinstance(n, int):
        return (along.transposed(rev, y_hat, i, along.one_hot(gather, at, n, y_hat.dtype), n),)
    (size,) = r
    length = along.size(rev, size, i)
    inside = rev.emit("Where", at < 0, _add(rev, length, at), at, dtype=np.int64, shape=[len(at)])
    return (along.transposed(rev, y_hat, i, along.selection(rev, inside, length, y_hat.dtype), n),)


pad = Rule("cut off", _pad, free_size)
crop = Rule("pad with zeros", _slice_back, free_size)
gather = Rule("move back", _gather, free_size)
