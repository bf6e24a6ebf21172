"""Pictures with a known foreground, for the tests of segmentation."""

import numpy as np
from PIL import Image

from revgraph.paper.segmentation import Settings

SMALL = Settings(shorter=48)


def scene(height: int, width: int, seed: int = 0) -> tuple[Image.Image, np.ndarray]:
    """A red disc on green, with noise, and its mask."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    disc = (rows - height * 0.45) ** 2 + (columns - width * 0.55) ** 2 < (min(height, width) / 4) ** 2
    pixels = np.where(disc[..., None], (200, 60, 40), (40, 150, 70)) + draw.normal(0, 12, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), disc


def photograph(seed: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    """Random squares."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST)
