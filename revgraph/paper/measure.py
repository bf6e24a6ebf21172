"""What the text says of images, as numbers. Maps are (H, W), x_hat (3, H, W) in RGB order."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from revgraph import picture
from revgraph.explain import Explanation
from revgraph.paper.library import library

Array = np.ndarray

Box = tuple[int, int, int, int]
"""First row, last, first column, last; the lasts excluded."""

VANISHED = "nothing survives after"
"""A column: the layer below which an x_hat is all zero, where it is."""

FINE = 3.0
"""Standard deviation in pixels of the blur that parts a picture's edges from its areas."""


def correlation(a: Array, b: Array) -> float:
    """Pearson's, over all elements; 0 where one of them is constant."""
    if not a.size:
        return 0.0
    a, b = (v.astype(np.float64).ravel() - v.mean(dtype=np.float64) for v in (a, b))
    size = norm(a) * norm(b)
    return float(a @ b) / size if size else 0.0


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman's, equal numbers sharing their rank."""
    rank = library("scipy.stats").rankdata
    return correlation(rank(a), rank(b))


def similarity(a: Array, b: Array) -> float:
    """SSIM of two maps, each scaled to its own largest number, as Adebayo et al. have it."""
    first, second = (m / (m.max() or 1.0) for m in (a, b))
    metrics = library("skimage.metrics")
    return float(metrics.structural_similarity(first, second, data_range=1.0))


def about(found: Explanation) -> dict[str, Any]:
    """What was explained, whether it shows edges, and how far it is a spot."""
    return {
        "channel": found.peak.channel,
        "label": found.label,
        "score": found.peak.score,
        "edges": edges(found.x_hat, found.crop),
        "concentration": concentration(picture.saliency(found.x_hat)),
        VANISHED: found.vanished,
    }


def norm(a: Array) -> float:
    return float(np.linalg.norm(a.astype(np.float64)))


def relative(a: Array, b: Array) -> float:
    """The size of a - b over that of b."""
    return norm(a - b) / (norm(b) or 1.0)


def edges(x_hat: Array, crop: Image.Image) -> float:
    """Whether x_hat shows the picture's edges, with their polarity: its correlation with the fine detail.

    Over where x_hat is not zero, both as the mean over their colours, the picture without its blur.
    """
    grey = np.asarray(crop.convert("RGB"), np.float64).mean(axis=2)
    fine = grey - library("scipy.ndimage").gaussian_filter(grey, FINE)
    lit = picture.saliency(x_hat) > 0
    return correlation(x_hat.mean(axis=0)[lit], fine[lit]) if lit.any() else 0.0


def concentration(saliency: Array) -> float:
    """The part of a map's sum in its strongest tenth of pixels: .1 where it is uniform, 1 for a spot."""
    ordered = np.sort(saliency.ravel())[::-1]
    total = float(ordered.sum())
    return float(ordered[: max(round(0.1 * ordered.size), 1)].sum()) / total if total else 0.0


def box(saliency: Array) -> Box:
    """Of what is not zero."""
    lit = saliency > 0
    if not lit.any():
        return 0, 0, 0, 0
    rows, columns = (np.flatnonzero(lit.any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def interval(values: Array, *others: Array, statistic: Callable[..., Any] = np.mean) -> tuple[float, float]:
    """Where the mean of the values lies: the 95 % bootstrap interval, by percentiles of 10,000 samples.

    Args:
        values: One for each picture.
        *others: More of the same pictures, for another statistic than the mean.
        statistic: Of all of these, along `axis`.
    """
    if len(values) < 2:
        return float(statistic(values, *others, axis=-1)), float(statistic(values, *others, axis=-1))
    found = library("scipy.stats").bootstrap(
        (values, *others),
        statistic,
        n_resamples=10_000,
        batch=1_000,
        vectorized=True,
        paired=bool(others),
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
