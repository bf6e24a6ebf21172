"""Pictures with masks of their foreground, and how far a segmentation agrees with them."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from revgraph import picture
from revgraph.errors import RevgraphError
from revgraph.explain import PICTURES

Array = np.ndarray

IGNORED = 128
"""A mask's grey where it says neither."""

KINDS = f"0 for background, 255 for foreground, {IGNORED} for neither"

APART = 0.02
"""How far the shapes of picture and mask may differ, beyond a pixel: part of the mask's height."""


@dataclass(frozen=True, slots=True)
class Case:
    """A picture and its annotations.

    Attributes:
        name: What tables call it.
        path: The picture.
        masks: One or more, by different people.
        group: Its class, where the data set has classes: means are of classes then.
    """

    name: str
    path: Path
    masks: tuple[Path, ...]
    group: str = ""


class Score(NamedTuple):
    """Agreement from 0 to 1: the part of pixels that are right, and intersection over union."""

    pp: float
    iou: float


# ----- Finding the masks -----


def from_manifest(path: Path, among: Sequence[Path] = ()) -> list[Case]:
    """The pictures of a CSV with columns `image`, `mask` and maybe `class`, paths from its own folder.

    Args:
        path: The CSV. A picture of several lines has several masks.
        among: Pictures, or folders, to keep to; none for all.

    Raises:
        RevgraphError: It cannot be read, lacks a column, or names no picture among those.
    """
    found: dict[str, Case] = {}
    for row in _rows(path):
        name = row["image"]
        before = found.get(name)
        masks = (*before.masks, path.parent / row["mask"]) if before else (path.parent / row["mask"],)
        found[name] = Case(name, path.parent / name, masks, row.get("class") or "")
    wanted = [place.resolve() for place in among]
    kept = [
        case
        for case in found.values()
        if not wanted or any(case.path.resolve().is_relative_to(place) for place in wanted)
    ]
    if not kept:
        raise RevgraphError(
            f"no pictures to segment in '{path}'", "it lists none of those asked for", "name others"
        )
    return kept


def _rows(path: Path) -> list[dict[str, str]]:
    what, remedy = f"cannot read '{path}'", "a CSV file with columns image and mask"
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise RevgraphError(what, error.strerror or str(error), remedy) from error
    except (ValueError, csv.Error) as error:
        raise RevgraphError(what, str(error), remedy) from error
    for number, row in enumerate(rows, 2):
        for column in ("image", "mask"):
            if not row.get(column):
                raise RevgraphError(what, f"line {number} has no {column}", remedy)
    return rows


def from_folder(pictures: Sequence[Path], folder: Path) -> list[Case]:
    """Each picture with the masks of its name: `NAME.png` or another type, or all pictures in `NAME/`.

    Raises:
        RevgraphError: The folder is none, or a picture has no mask in it, or two pictures have one name.
    """
    if not folder.is_dir():
        raise RevgraphError(f"cannot find masks in '{folder}'", "it is no folder", "name one")
    found: dict[str, Case] = {}
    for path in pictures:
        masks = tuple(sorted(_masks(folder, path.stem)))
        if not masks or path.stem in found:
            why = "another picture has its name" if masks else f"'{folder}' holds no {path.stem}.png"
            raise RevgraphError(f"cannot tell the mask of '{path}'", why, "list both in a --manifest")
        found[path.stem] = Case(path.stem, path, masks)
    return list(found.values())


def _masks(folder: Path, stem: str) -> Iterator[Path]:
    for path in (*folder.glob(f"{_literally(stem)}.*"), *folder.glob(f"{_literally(stem)}/*")):
        if path.suffix.lower() in PICTURES and path.is_file() and stem in (path.stem, path.parent.name):
            yield path


def _literally(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


# ----- Reading and scoring -----


def annotation(path: Path, size: tuple[int, int]) -> Array:
    """A mask as uint8 (H, W): 0, 255, or IGNORED. Its size may be another than the picture's, not its shape.

    Args:
        path: The mask; grey, or the same grey in all colours; 0 and 1 count as 0 and 255.
        size: (H, W) of the picture.

    Raises:
        RevgraphError: It is not a mask, or not this picture's.
    """
    what = f"cannot use mask '{path}'"
    colours = np.asarray(picture.read(path))
    grey = colours.max(axis=2)
    if (grey != colours.min(axis=2)).any():
        raise RevgraphError(what, "it has colours", KINDS)
    if 1 < grey.max() < IGNORED:
        raise RevgraphError(what, f"its largest value is {grey.max()}", KINDS)
    if grey.max() == 1:
        grey = grey * 255
    if (grey == IGNORED).all():
        raise RevgraphError(what, "it says nothing of any pixel", KINDS)
    height, width = grey.shape
    if abs(height - size[0] * width / size[1]) > max(1.0, APART * height):
        why = f"it is {width} x {height} and its picture {size[1]} x {size[0]}"
        raise RevgraphError(what, why, "a mask of the picture's shape")
    return np.where(grey == IGNORED, grey, np.where(grey > IGNORED, 255, 0)).astype(np.uint8)


def score(mask: Array, annotations: Sequence[Array]) -> Score:
    """Per-pixel accuracy and IoU, either by the annotation that it agrees with most.

    Args:
        mask: bool (h, w), scaled to each annotation by its nearest pixels.
        annotations: Of `annotation`.

    Returns:
        Both from 0 to 1; the IoU is 1 where neither has a foreground.
    """
    scores = [_against(resized(mask, (truth.shape[0], truth.shape[1])), truth) for truth in annotations]
    return Score(max(s.pp for s in scores), max(s.iou for s in scores))


def _against(mask: Array, truth: Array) -> Score:
    counted = truth != IGNORED
    inside = truth > IGNORED
    union = int(((mask | inside) & counted).sum())
    both = int((mask & inside & counted).sum())
    return Score(float((mask == inside)[counted].mean()), both / union if union else 1.0)


def resized(mask: Array, size: tuple[int, int]) -> Array:
    """A mask or a map as (H, W), by the nearest pixels."""
    return np.asarray(Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST))
