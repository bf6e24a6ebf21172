"""Segmentations to look at: a picture with its foreground, and a sheet of several like Fig. 8."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from revgraph import panels, picture
from revgraph.paper import sheet
from revgraph.paper.library import library
from revgraph.paper.segmentation import Settings, truth
from revgraph.paper.segmentation.saliency import shrunk
from revgraph.paper.segmentation.segment import segment, title
from revgraph.paper.subject import Subject

FAINT = 0.7
"""How far the background fades to white."""

SHOWN = 8
"""Pictures of a sheet."""


def overlay(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """The picture, its background faint and a line about the foreground.

    Args:
        image: RGB.
        mask: bool, of the picture's (H, W).
    """
    pixels = np.asarray(image.convert("RGB")) / 255.0
    faint = np.where(mask[..., None], pixels, FAINT + (1 - FAINT) * pixels)
    marked = library("skimage.segmentation").mark_boundaries(faint, mask, color=(1, 0, 0), mode="thick")
    return picture.image_of(marked.transpose(2, 0, 1))


def figure(
    subject: Subject, cases: Sequence[truth.Case], methods: Sequence[str], settings: Settings
) -> Image.Image:
    """Fig. 8: below each picture with its mask, each method's foreground and the image it is cut from."""
    drawn = np.random.default_rng(0).permutation(len(cases))[:SHOWN]
    chosen = [cases[i] for i in sorted(drawn)]
    columns = []
    for case in chosen:
        image = picture.read(case.path)
        small = shrunk(image, settings.shorter)
        known = truth.annotation(case.masks[0], (image.height, image.width))
        column = [overlay(small, truth.resized(known > truth.IGNORED, (small.height, small.width)))]
        for method in methods:
            found = segment(subject, method, image, settings)
            column += [overlay(small, found.mask), found.saliency.shown]
        side = max(small.size)
        columns.append([ImageOps.pad(tile.convert("RGB"), (side, side), color="white") for tile in column])
    rows = ["annotated", *(f"{title(method)}{what}" for method in methods for what in ("", ", from"))]
    caption = (
        "As Fig. 8, pictures drawn at random: each method's foreground, and below it what it was cut from. "
        f"{subject.name}, the strongest class by '{settings.selector}', {settings.solver}."
    )
    return sheet.grid(
        [list(row) for row in zip(*columns, strict=True)],
        rows,
        [panels.printable(case.name.rpartition("/")[2]) for case in chosen],
        caption,
    )
