"""How pictures become a network's input and what its classes are called: the recipes in `models/*.toml`."""

import hashlib
import json
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from revgraph.errors import RevgraphError
from revgraph.packages import packaged
from revgraph.reading import read_bytes

Array = npt.NDArray[Any]

MOST, MOST_NAMES = 2**14, 2**24
"""Most bytes of a recipe, some of which take tomllib time that grows as their square, and of class names."""


@dataclass(frozen=True, slots=True)
class Source:
    """Weights: one file of one installed package, pinned by its digest. `network` names the architecture."""

    package: str
    version: str
    file: str
    sha256: str
    network: str


@dataclass(frozen=True, slots=True)
class Labels:
    """A file of class names: inside an installed package, or (package None) an absolute path."""

    file: str
    count: int
    package: str | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """What goes into a network and what comes out. C is 3 ("RGB", "BGR") or 1 ("L").

    Attributes:
        name: The recipe file's stem.
        title: One line for people.
        size: (H, W) of the input, or None: the model's own.
        channels: "RGB", "BGR" or "L", in the order in which they are fed.
        scale: Pixels run from 0 to this before the mean is taken off.
        mean: C numbers, in the order of `channels`, as is `std`.
        std: C numbers.
        labels: Where the class names are, if anywhere.
        source: Where the weights are; None for preprocessing alone.
        layers: Layers worth pointing at, with a line on each.
        licence: Of the weights and the labels; `attribution` is the line to print.
        digest: sha256 of the recipe file.
    """

    name: str
    title: str
    size: tuple[int, int] | None
    channels: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: Labels | None
    source: Source | None
    layers: Mapping[str, str]
    licence: Mapping[str, str]
    digest: str

    def crop(self, picture: Image.Image, size: tuple[int, int]) -> Image.Image:
        """The RGB crop that a network of input size (H, W) sees: bicubic, aspect kept, cut at the centre."""
        return self._cover(picture, size).convert("RGB")

    def feed(self, picture: Image.Image, size: tuple[int, int]) -> Array:
        """x = (pixel - mean) / std of the crop, in the recipe's order of channels: float32 (1, C, H, W)."""
        pixels = np.atleast_3d(np.asarray(self._cover(picture, size))).transpose(2, 0, 1)
        mean, std = (np.array(values)[:, None] for values in (self.mean, self.std))
        levels = ((np.arange(256) * (self.scale / 255) - mean) / std).astype(np.float32)
        return np.stack([of[plane] for of, plane in zip(levels, self._swap(pixels), strict=True)])[None]

    def rgb(self, x: Array) -> Array:
        """The (C, H, W) array x in RGB order, (3, H, W); a single channel three times."""
        return self._swap(x if len(self.channels) == 3 else np.repeat(x, 3, axis=0))

    @property
    def largest(self) -> float:
        """The largest number, of either sign, that a picture is fed as."""
        ends = (np.array([[0.0], [self.scale]]) - self.mean) / self.std
        return float(np.abs(ends).max())

    def class_names(self) -> tuple[str, ...] | None:
        """One name per class, or None where the recipe has none.

        Raises:
            RevgraphError: The package that holds them is not installed, or the file is not what it should be.
        """
        what = f"cannot read the class names of recipe '{self.name}'"
        return None if self.labels is None else _class_names(what, self.labels)

    def _cover(self, picture: Image.Image, size: tuple[int, int]) -> Image.Image:
        mode = "L" if self.channels == "L" else "RGB"
        return ImageOps.fit(picture.convert(mode), (size[1], size[0]), Image.Resampling.BICUBIC)

    def _swap(self, x: Array) -> Array:
        """RGB to the recipe's order, or back."""
        return x[::-1] if self.channels == "BGR" else x


# ----- Reading recipes -----

Check = tuple[Callable[[Any], bool], str]  # the test a field passes, and what it must be in words


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _positive(value: Any) -> bool:
    return _number(value) and value > 1e-30


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**16


def _text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _list_of(test: Callable[[Any], bool], *lengths: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) in lengths and all(map(test, value))


TEXT: Check = (_text, "a text")
TABLE: Check = (lambda value: isinstance(value, dict), "a table")
TEXTS: Check = (lambda value: isinstance(value, dict) and all(map(_text, value.values())), "a table of texts")

FIELDS: Mapping[str, Check] = {
    "title": TEXT,
    "input": TABLE,
    "input.size": (_list_of(_count, 2), "two whole numbers, height and width"),
    "input.channels": (lambda value: value in ("RGB", "BGR", "L"), '"RGB", "BGR" or "L"'),
    "input.scale": (_positive, "a positive number"),
    "input.mean": (_list_of(_number, 1, 3), "a list of numbers, one per channel"),
    "input.std": (_list_of(_positive, 1, 3), "a list of positive numbers, one per channel"),
    "source": TABLE,
    "source.package": TEXT,
    "source.version": TEXT,
    "source.file": TEXT,
    "source.sha256": (lambda value: _text(value) and len(value) == 64, "64 hexadecimal digits"),
    "source.network": TEXT,
    "labels": TABLE,
    "labels.package": TEXT,
    "labels.file": TEXT,
    "labels.count": (_count, "a whole number from 1 to 65535"),
    "layers": TEXTS,
    "licence": TEXTS,
}
OPTIONAL = ("input.size", "source", "labels", "labels.package", "layers", "licence")


def _problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a recipe, in the order of FIELDS. Whoever asks on trusts what came before."""
    for field, (passes, must_be) in FIELDS.items():
        table, _, key = field.rpartition(".")
        values = raw.get(table, {}) if table else raw
        if key not in values and field not in OPTIONAL and (not table or table in raw):
            yield f"field '{field}' is missing"
        elif key in values and not passes(values[key]):
            yield f"field '{field}' must be {must_be}"
    inner = (f"{table}.{key}" for table in ("input", "source", "labels") for key in raw.get(table, {}))
    for field in sorted({*raw, *inner} - FIELDS.keys()):
        yield f"unknown field '{field}' (known: {', '.join(FIELDS)})"
    fields = raw["input"]
    for field in ("mean", "std"):
        if len(fields[field]) != len(fields["channels"]):
            yield f"field 'input.{field}' must have one number per channel"
    if not _fits(fields["scale"], fields["mean"], fields["std"]):
        yield "fields 'input.scale', 'input.mean' and 'input.std' make numbers that float32 does not hold"


def _fits(scale: float, mean: Sequence[float], std: Sequence[float]) -> bool:
    """Whether black and white are float32 numbers, and differ in them."""
    with np.errstate(over="ignore"):
        ends = ((np.array([[0.0], [scale]]) - mean) / std).astype(np.float32)
    return bool(np.isfinite(ends).all() and (ends[0] != ends[1]).all())


def names() -> tuple[str, ...]:
    """The recipes that travel with revgraph."""
    return tuple(sorted(path.stem for path in _shipped().glob("*.toml")))


def _shipped() -> Path:
    """`models/`: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return next(folder for folder in (package / "models", package.parent / "models") if folder.is_dir())


def load(name_or_file: str) -> Recipe:
    """The shipped recipe of that name, or the recipe in that .toml file.

    Raises:
        RevgraphError: There is none, or it is not a recipe; the message names the field.
    """
    if name_or_file in names():
        return _read(_shipped() / f"{name_or_file}.toml")
    if Path(name_or_file).suffix.lower() == ".toml":
        return _read(Path(name_or_file))
    known = f"{', '.join(names())}, or the path of a .toml file"
    raise RevgraphError(f"unknown recipe '{name_or_file}'", "neither shipped nor a .toml file", known)


def _read(path: Path) -> Recipe:
    what, remedy = f"cannot read recipe '{path}'", f"recipes that work: {', '.join(names())}"
    try:
        data = read_bytes(path, MOST)
        raw = tomllib.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise RevgraphError(what, error.strerror or str(error), remedy) from error
    except (ValueError, RecursionError) as error:  # not TOML, or not UTF-8
        raise RevgraphError(what, str(error), remedy) from error
    problem = next(_problems(raw), None)
    if problem is not None:
        raise RevgraphError(what, problem, remedy)
    return _recipe(path, raw, hashlib.sha256(data).hexdigest())


def _recipe(path: Path, raw: dict[str, Any], digest: str) -> Recipe:
    fields = raw["input"]
    labels = Labels(**raw["labels"]) if "labels" in raw else None
    if labels and labels.package is None:
        labels = replace(labels, file=str(path.absolute().parent / labels.file))
    return Recipe(
        name=path.stem,
        title=raw["title"],
        size=(fields["size"][0], fields["size"][1]) if "size" in fields else None,
        channels=fields["channels"],
        scale=float(fields["scale"]),
        mean=tuple(map(float, fields["mean"])),
        std=tuple(map(float, fields["std"])),
        labels=labels,
        source=Source(**raw["source"]) if "source" in raw else None,
        layers=raw.get("layers", {}),
        licence=raw.get("licence", {}),
        digest=digest,
    )


# ----- Class names -----


def _class_names(what: str, labels: Labels) -> tuple[str, ...]:
    path = packaged(labels.package, labels.file) if labels.package else Path(labels.file)
    remedy = "a JSON list of texts, or a text file with one name per line"
    try:
        found = _names(read_bytes(path, MOST_NAMES).decode("utf-8"), path.suffix.lower())
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RevgraphError(what, f"'{path}': {error}", remedy) from error
    if len(found) != labels.count or not all(map(_text, found)):
        raise RevgraphError(what, f"'{path}' does not hold {labels.count} names", remedy)
    return tuple(found)


def _names(text: str, suffix: str) -> list[Any]:
    """Class names from lines, a JSON list, or ImageNet's JSON table {"0": "tench, Tinca tinca", ...}."""
    if suffix != ".json":
        return text.splitlines()
    raw = json.loads(text)
    if not isinstance(raw, dict):
        return list(raw)
    synonyms = [str(raw[str(index)]) for index in range(len(raw))]
    first = [name.split(", ")[0] for name in synonyms]
    shared = Counter(first)
    return [short if shared[short] == 1 else full for short, full in zip(first, synonyms, strict=True)]
