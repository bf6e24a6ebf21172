"""The foreground of one picture, by a method."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from revgraph import variants
from revgraph.paper.segmentation import Settings, cut, truth
from revgraph.paper.segmentation.saliency import BASELINE, Saliency, saliency, shrunk, smoothed
from revgraph.paper.subject import Subject

METHODS = ("salinet", "desalinet", "deconvnet", BASELINE)
"""Those of Table 1, in its order."""


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A picture's foreground by one method.

    Attributes:
        saliency: What the method made of the picture.
        seeds: As cut.seeds gives them, (h, w).
        mask: bool (h, w).
    """

    saliency: Saliency
    seeds: np.ndarray
    mask: np.ndarray


def title(method: str) -> str:
    """What the tables call a method."""
    return "Baseline" if method == BASELINE else variants.title(method)


def segment(
    subject: Subject, method: str, image: Image.Image, settings: Settings, other: Image.Image | None = None
) -> Segmentation:
    """The foreground of a picture by a variant or the baseline.

    Args:
        subject: The network.
        method: A variant, or "baseline".
        image: The picture, of any size.
        settings: How.
        other: The picture whose map is taken in place of its own, scaled by the nearest pixels, for a map
            that is smoothed on the way would be cut better.

    Raises:
        RevgraphError: The network cannot take the picture.
    """
    small = shrunk(image, settings.shorter)
    source = small if other is None else shrunk(other, settings.shorter)
    found = saliency(subject, method, source, settings.selector)
    strength = found.map
    if other is not None:
        strength = truth.resized(strength.astype(np.float32), (small.height, small.width))
    if method != BASELINE:
        strength = smoothed(strength, settings.blur, settings.centred)
    sown = cut.seeds(strength, cut.FOREGROUND_OF.get(method, cut.FOREGROUND))
    pixels = np.asarray(small)
    return Segmentation(found, sown, cut.segment(pixels, sown, settings.solver, settings.smoothness))
