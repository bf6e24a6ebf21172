"""Where an array's channels lie: frameworks put them first, (N, C, ...), or last, (N, ..., C)."""

from collections.abc import Iterator, Sequence

import numpy as np

from revgraph.errors import RevgraphError

COLOURS = (1, 3)
"""Channels that a picture may have."""


def layouts(array: np.ndarray) -> Iterator[np.ndarray]:
    """The array as it is, with its channels moved last, and with its last axis moved to the channels."""
    yield array
    if array.ndim > 2:
        yield np.moveaxis(array, 1, -1)
        yield np.moveaxis(array, -1, 1)


def laid_out(array: np.ndarray, shape: Sequence[int | str | None], what: str) -> np.ndarray:
    """The array in whichever layout fits a shape, whose first and free sizes may be any.

    Raises:
        RevgraphError: None does.
    """
    for candidate in layouts(array):
        if len(shape) == candidate.ndim and all(
            n == m or not isinstance(n, int) for n, m in zip(shape[1:], candidate.shape[1:], strict=True)
        ):
            return candidate
    why = f"one is {list(array.shape)}, the other {list(shape)}, channels first or last"
    raise RevgraphError(f"the two networks differ in {what}", why, "compare two of the same network")


def saliency(x_hat: np.ndarray) -> np.ndarray:
    """The L-infinity norm over the channels of one image, (C, ...) or (..., C), as for colours; Sect. 3.5."""
    last = x_hat.shape[-1] in COLOURS and x_hat.shape[0] not in COLOURS
    return np.asarray(np.abs(x_hat).max(axis=-1 if last else 0))
