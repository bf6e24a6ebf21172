"""Pictures with masks of their foreground, and how far a segmentation agrees with them."""

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from revgraph import picture
from revgraph.errors import RevgraphError
from revgraph.reading import read_bytes

Array = np.ndarray

MOST = 2**28
"""Most bytes of a list of pictures."""

IGNORED = 128
"""A mask's grey where it says neither."""

KINDS = f"0 for background, 255 for foreground, {IGNORED} for neither"

APART = 0.02
"""How far the shapes of picture and mask may differ, if that is more than a pixel: part of a side."""


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

    def digest(self) -> str:
        """One of all that it holds, its files' contents too.

        Raises:
            RevgraphError: A file is not there.
        """
        found = hashlib.sha256(repr((self.name, self.group, len(self.masks))).encode())
        for path in (self.path, *self.masks):
            try:
                found.update(hashlib.sha256(read_bytes(path)).digest())
            except OSError as error:
                why = error.strerror or str(error)
                raise RevgraphError(f"cannot read '{path}'", why, "take it off the list") from error
        return found.hexdigest()[:16]


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
        RevgraphError: It cannot be read, lacks something, or does not list one of those.
    """
    found: dict[str, Case] = {}
    for row in _rows(path):
        name, mask = row["image"], path.parent / row["mask"]
        before = found.get(name)
        masks = (*before.masks, mask) if before else (mask,)
        found[name] = Case(name, path.parent / name, masks, row.get("class") or "")
    if not among:
        return list(found.values())
    places = {place: [case for case in found.values() if _lies_in(case.path, place)] for place in among}
    if strange := next((place for place, cases in places.items() if not cases), None):
        raise RevgraphError(f"no masks for '{strange}'", f"'{path}' does not list it", "name what it lists")
    return [case for case in found.values() if any(case in cases for cases in places.values())]


def _lies_in(path: Path, place: Path) -> bool:
    return path.resolve().is_relative_to(place.resolve())


def _rows(path: Path) -> list[dict[str, str]]:
    what, remedy = f"cannot read '{path}'", "a CSV file with columns image and mask"
    try:
        text = read_bytes(path, MOST).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except OSError as error:
        raise RevgraphError(what, error.strerror or str(error), remedy) from error
    except (ValueError, csv.Error) as error:
        raise RevgraphError(what, str(error), remedy) from error
    if not rows:
        raise RevgraphError(what, "it lists nothing", remedy)
    wanted = ("image", "mask", "class") if any(row.get("class") for row in rows) else ("image", "mask")
    for number, row in enumerate(rows, 2):
        for column in wanted:
            if not row.get(column) or "\0" in row[column]:
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
        masks = tuple(sorted(mask for mask in _masks(folder, path.stem) if mask.resolve() != path.resolve()))
        if not masks or path.stem in found:
            why = "another picture has its name" if masks else f"'{folder}' holds no {path.stem}.png"
            raise RevgraphError(f"cannot tell the mask of '{path}'", why, "list both in a --manifest")
        found[path.stem] = Case(path.stem, path, masks)
    return list(found.values())


def _masks(folder: Path, stem: str) -> Iterator[Path]:
    for path in (*folder.glob(f"{_literally(stem)}.*"), *folder.glob(f"{_literally(stem)}/*")):
        own = path.parent == folder / stem or path.stem == stem
        if own and path.suffix.lower() in picture.SUFFIXES and path.is_file():
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
    with Image.open(path) as raw:
        if "transparency" in raw.info or raw.mode not in ("1", "L", "P", "RGB"):
            raise RevgraphError(what, f"its pixels are {raw.mode}", f"8 bits, {KINDS}")
    grey = colours[..., 0]
    if (colours != grey[..., None]).any():
        raise RevgraphError(what, "it has colours", KINDS)
    values = set(np.unique(grey).tolist())
    if values == {IGNORED}:
        raise RevgraphError(what, "it says nothing of any pixel", KINDS)
    if 1 in values and values <= {0, 1, IGNORED}:
        grey = np.where(grey == 1, 255, grey)
    elif {1, 255} <= values <= {0, 1, 255} or 0 < max(values - {IGNORED}) < IGNORED:
        listed = ", ".join(map(str, sorted(values)[:5]))
        raise RevgraphError(what, f"its values, {listed}, do not tell the foreground", KINDS)
    _check_shape(what, (grey.shape[0], grey.shape[1]), size)
    return np.where(grey == IGNORED, grey, np.where(grey > IGNORED, 255, 0)).astype(np.uint8)


def _check_shape(what: str, mask: tuple[int, int], size: tuple[int, int]) -> None:
    """Whether one is the other scaled, but for a pixel or a little more in one direction."""
    off = min(abs(mask[i] - size[i] * mask[1 - i] / size[1 - i]) - max(1.0, APART * mask[i]) for i in (0, 1))
    if off > 0 and max(abs(mask[i] - size[i]) for i in (0, 1)) > 1:
        why = f"it is {mask[1]} x {mask[0]} and its picture {size[1]} x {size[0]}"
        raise RevgraphError(what, why, "a mask of the picture's shape")


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
