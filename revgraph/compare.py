"""Two compilations of one network: how far their images agree, and at which layer they part."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from revgraph import neuron
from revgraph.errors import RevgraphError, missing_extra
from revgraph.neuron import Neuron
from revgraph.session import Session

PARTED = 1e-3
"""Relative error of two layers that are taken for the same: rounding is a thousandth of that."""

FREE = 64
"""Of a random input, the height and width where the network leaves them free."""

COLOURS = (1, 3)
"""Channels that a picture may have."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One input and one neuron, through two compilations.

    Attributes:
        x_hats: (1, *x.shape[1:]) of both, laid out like the first's x.
        cosine: Of the angle between them; 1 where both are zero.
        error: The length of their difference, relative to the first's.
        rank_correlation: Spearman's, of the saliency maps; 1 for equal maps.
        forward_parts: The first's layer from which on none of the forward graphs' agrees; None if y does.
        reversed_parts: The same on the way back: the forward tensor whose x_hat it is; None if x_hat agrees.
    """

    x_hats: tuple[np.ndarray, np.ndarray]
    cosine: float
    error: float
    rank_correlation: float
    forward_parts: str | None
    reversed_parts: str | None


def compare(a: Session, b: Session, x: np.ndarray, chosen: Neuron, rng: np.random.Generator) -> Comparison:
    """Run the same input and neuron through both.

    Args:
        a: One compilation.
        b: Another, of the same network; its channels may come first or last.
        x: An input as `a` takes it, (1, ...).
        chosen: The neuron, chosen by what `a` makes of x.
        rng: For neurons that are drawn.

    Raises:
        RevgraphError: The two differ in the shapes of x or y, or do not run.
    """
    other = laid_out(x, b.x_shape, "the input").astype(b.x_dtype)
    trace, other_trace = a.forward(x), b.forward(other)
    p = neuron.project(chosen, trace.y, rng)
    other_p = laid_out(p, other_trace.y.shape, "the layer compared").astype(other_trace.y.dtype)
    x_hat = a.reverse(trace, p)
    other_x_hat = laid_out(b.reverse(other_trace, other_p), x_hat.shape, "x_hat")
    forward, back = a.layers(x, p)
    other_forward, other_back = b.layers(other, other_p)
    return Comparison(
        (x_hat, other_x_hat),
        *_agreement(x_hat, other_x_hat),
        _rank_correlation(saliency(x_hat[0]), saliency(other_x_hat[0])),
        _parting(forward, other_forward),
        _parting(back, other_back),
    )


def random_input(session: Session, rng: np.random.Generator) -> np.ndarray:
    """One image of noise, (1, ...), as the session takes it; free sizes are 64."""
    shape = [n if isinstance(n, int) else FREE if i else 1 for i, n in enumerate(session.x_shape)]
    if np.issubdtype(session.x_dtype, np.floating):
        return rng.standard_normal(shape).astype(session.x_dtype)
    return rng.integers(0, 100, shape).astype(session.x_dtype)


def _agreement(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Cosine, and the relative error."""
    a, b = (x_hat.astype(np.float64).ravel() for x_hat in (a, b))
    lengths, difference = np.linalg.norm(a) * np.linalg.norm(b), np.linalg.norm(a - b)
    if not lengths:
        return float(difference == 0), float(difference > 0)
    return float(a @ b / lengths), float(difference / np.linalg.norm(a))


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    try:
        from scipy.stats import spearmanr
    except ImportError as error:
        raise missing_extra("cannot compare saliency maps", "scipy", "compare") from error
    if np.ptp(a) == 0 or np.ptp(b) == 0:  # where all ranks tie there is no correlation
        return float(np.array_equal(a, b))
    return float(spearmanr(a, b, axis=None).statistic)


Layers = Sequence[tuple[str, np.ndarray]]
"""Tensors in the order in which they are computed."""


def _parting(layers: Layers, others: Layers) -> str | None:
    """The first layer from which on none agrees with any of the others'."""
    lengths = np.array([_length(other) for _, other in others])
    for i in reversed(range(len(layers))):
        if _found(layers[i][1], others, lengths):
            return layers[i + 1][0] if i + 1 < len(layers) else None
    return layers[0][0]


def _found(layer: np.ndarray, others: Layers, lengths: np.ndarray) -> bool:
    """Whether a layer is among the others, in whichever layout."""
    most = PARTED * max(_length(layer), 1e-30)
    near = np.flatnonzero(np.abs(lengths - _length(layer)) <= most)
    return any(
        candidate.shape == layer.shape and _length(candidate - layer) <= most
        for i in map(int, near)
        for candidate in layouts(others[i][1])
    )


def _length(values: np.ndarray) -> float:
    return float(np.linalg.norm(values.astype(np.float64)))


# ---------------------------------------------------------------- channels first or last


def layouts(array: np.ndarray) -> Iterator[np.ndarray]:
    """The array as it is, from (N, C, ...) to (N, ..., C), and the other way: frameworks have both."""
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
