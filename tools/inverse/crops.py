"""The pictures, split by picture into three parts, and the square crops that the networks see of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from revgraph import picture, weights, zoo
from revgraph.errors import RevgraphError

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}

LEAST = 0.35
"""The side of the smallest crop, of the picture's shorter one."""


def split(pictures: Sequence[Path]) -> dict[str, list[Path]]:
    """The pictures of each part, by SHARES.

    They are ordered by the digest of their file, so that a picture's part depends neither on its name nor on
    its folder, and a copy of it cannot land in another part.

    Raises:
        RevgraphError: They are too few for three parts, or one cannot be read.
    """
    for path in pictures:
        picture.read(path)  # now, rather than hours later
    order = [path for _, path in sorted({digest(path): path for path in pictures}.items())]
    ends = np.round(np.cumsum([0.0, *SHARES.values()]) * len(order)).astype(int)
    parts = {name: order[a:b] for name, a, b in zip(SHARES, ends[:-1], ends[1:], strict=True)}
    if not all(parts.values()):
        why = f"{len(order)} different pictures leave one of {', '.join(SHARES)} empty"
        raise RevgraphError("cannot split the pictures", why, "give at least nine")
    return parts


def samples() -> list[Image.Image]:
    """scikit-image's photographs, as zoo.SAMPLES orders them: held out too, and free to be shown."""
    return [zoo.sample(name) for name in zoo.SAMPLES]


def crops(image: Image.Image, count: int, size: int, seed: int) -> Iterator[Image.Image]:
    """The middle square of the picture, then `count - 1` random squares; RGB, `size` pixels wide.

    Their sides are uniform between LEAST and 1 of the picture's shorter side; every other is mirrored.
    """
    random = np.random.default_rng(seed)
    shorter = min(image.size)
    for i in range(count):
        side = shorter * (random.uniform(LEAST, 1) if i else 1)
        left, top = ((full - side) * (random.uniform() if i else 0.5) for full in image.size)
        box = (left, top, left + side, top + side)
        crop = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box)
        yield crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if i % 2 else crop


def digest(*paths: Path) -> str:
    """Sha256 of the files' contents, in order."""
    return weights.sha256(*(path.read_bytes() for path in paths))
