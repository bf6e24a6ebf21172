"""From a saliency map to a mask: seeds by quantile, a graph cut over colours, the largest component."""

import warnings

import numpy as np

from revgraph.paper.library import library

Array = np.ndarray

FOREGROUND, BACKGROUND = 0.90, 0.30
"""Quantiles of the map: the foreground's seeds lie above the first, the background's below the other."""

FOREGROUND_OF = {"salinet": 0.95}
"""Where a method's own is another."""

CERTAIN_FOREGROUND, CERTAIN_BACKGROUND = 0.995, 0.005
"""Beyond these a pixel keeps its side."""

COMPONENTS = 5
"""Gaussians in the mixture of either side's colours."""

ROUNDS = 5
"""Of GrabCut: colours learnt, then cut."""

UNIFORM = 0.05
"""The part of the likelihood that any colour has."""

STEPS = 50
"""scipy's flows are whole numbers: so many to a unit of energy."""

SAMPLE = 4000
"""So many seeds, or less than twice as many, evenly spread, teach a mixture."""


def seeds(saliency_map: Array, foreground: float = FOREGROUND) -> Array:
    """int8 (H, W): 1 foreground, -1 background, 2 and -2 for certain, 0 neither.

    Args:
        saliency_map: (H, W).
        foreground: The quantile of its seeds.

    Returns:
        The seeds; all 0 where the map is the same everywhere.
    """
    low, weak, strong, high = np.quantile(
        saliency_map, (CERTAIN_BACKGROUND, BACKGROUND, foreground, CERTAIN_FOREGROUND)
    )
    above = saliency_map > saliency_map.min()  # a quantile of a sparse map may be its minimum
    found = np.zeros(saliency_map.shape, np.int8)
    if above.any():
        found[saliency_map <= weak] = -1
        found[saliency_map <= low] = -2
        found[(saliency_map >= strong) & above] = 1
        found[(saliency_map >= high) & above] = 2
    return found


def segment(pixels: Array, sown: Array, solver: str, smoothness: float) -> Array:
    """The largest component of the cut's foreground, bool (H, W); empty without seeds.

    Args:
        pixels: uint8 (H, W, 3), RGB.
        sown: Of `seeds`.
        solver: "grabcut" or "boykov-jolly".
        smoothness: As for the latter.
    """
    if not sown.any():
        return np.zeros(sown.shape, bool)
    return largest(grabcut(pixels, sown) if solver == "grabcut" else boykov_jolly(pixels, sown, smoothness))


def grabcut(pixels: Array, sown: Array) -> Array:
    """OpenCV's GrabCut from the seeds, five rounds; what is neither starts as probable background."""
    cv2 = library("cv2")
    sides = {-2: cv2.GC_BGD, -1: cv2.GC_PR_BGD, 0: cv2.GC_PR_BGD, 1: cv2.GC_PR_FGD, 2: cv2.GC_FGD}
    mask = np.select([sown == side for side in sides], list(sides.values())).astype(np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    cv2.grabCut(np.ascontiguousarray(pixels[..., ::-1]), mask, None, *models, ROUNDS, cv2.GC_INIT_WITH_MASK)
    return np.asarray((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD))


def boykov_jolly(pixels: Array, sown: Array, smoothness: float) -> Array:
    """One cut of least energy, colours learnt from the seeds alone (Boykov and Jolly, ICCV 2001).

    With c a pixel's colour in [0, 1]^3, f and b the mixtures learnt from either side's seeds, each .95 of its
    density and .05 of the uniform one:

        E(s) = sum_i -log P(s_i | c_i) + smoothness sum_(i,j) [s_i != s_j] exp(-|c_i - c_j|^2 / (mean / 2))

    P(foreground | c) = f / (f + b), over neighbours in rows and columns, `mean` that of |c_i - c_j|^2.
    """
    colours = pixels / 255.0
    foreground, background = (_likelihood(colours, side) for side in (sown > 0, sown < 0))
    as_background = _energy(foreground, background)
    as_foreground = _energy(background, foreground)
    as_background[sown == 2] = as_foreground[sown == -2] = 4 * smoothness + 1  # more than four borders
    as_background[sown == -2] = as_foreground[sown == 2] = 0.0
    return _least(as_foreground, as_background, colours, smoothness)


def _likelihood(colours: Array, chosen: Array) -> Array:
    """Of every pixel's colour, by the mixture of the chosen ones."""
    taught = colours[chosen][:: max(int(chosen.sum()) // SAMPLE, 1)]
    components = min(COMPONENTS, len(np.unique(taught, axis=0)))
    if len(taught) == 1:
        taught = np.repeat(taught, 2, axis=0)  # the least that it takes
    mixture = library("sklearn.mixture").GaussianMixture(components, reg_covar=1e-4, random_state=0)
    # Several threads fight over arrays as small as these, and take ten times as long.
    with warnings.catch_warnings(), library("threadpoolctl").threadpool_limits(1):
        warnings.simplefilter("ignore")  # colours that are nearly one converge slowly
        density = np.exp(mixture.fit(taught).score_samples(colours.reshape(-1, 3)))
    return np.asarray(UNIFORM + (1 - UNIFORM) * density).reshape(chosen.shape)


def _energy(likelihood: Array, other: Array) -> Array:
    """Of the other side: -log(other / (likelihood + other))."""
    return np.asarray(np.log((likelihood + other) / other))


def _least(as_foreground: Array, as_background: Array, colours: Array, smoothness: float) -> Array:
    """The foreground of least energy: what the source still reaches when the flow to the sink is largest."""
    pixel = np.arange(as_foreground.size).reshape(as_foreground.shape)
    source, sink = pixel.size, pixel.size + 1
    pairs = [(pixel[1:], pixel[:-1]), (pixel[:, 1:], pixel[:, :-1])]
    one, other = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    flat = colours.reshape(-1, 3)
    distance = ((flat[one] - flat[other]) ** 2).sum(axis=1)
    border = smoothness * np.exp(-distance / (distance.mean() / 2 or 1.0))
    more = (as_background - as_foreground).ravel()  # either end gives what one side costs more than the other
    edges = (
        (one, other, border),
        (other, one, border),
        (np.full(pixel.size, source), pixel.ravel(), np.maximum(more, 0)),
        (pixel.ravel(), np.full(pixel.size, sink), np.maximum(-more, 0)),
    )
    start, end, energy = (np.concatenate(part) for part in zip(*edges, strict=True))
    capacity = np.rint(STEPS * energy).astype(np.int32)
    graph = library("scipy.sparse").csr_array((capacity, (start, end)), shape=(sink + 1, sink + 1))
    routines = library("scipy.sparse.csgraph")
    left = graph - routines.maximum_flow(graph, source, sink).flow
    left.data = np.maximum(left.data, 0)
    left.eliminate_zeros()
    reached = routines.breadth_first_order(left, source, return_predecessors=False)
    return np.asarray(np.isin(pixel, reached))


def largest(mask: Array) -> Array:
    """The largest component of a mask, neighbours also across corners."""
    parts = library("skimage.measure").label(mask, connectivity=2)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray((parts == sizes.argmax()) & mask)
