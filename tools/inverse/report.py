"""What was found, as tables, as a sheet of reconstructions and as learning curves."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mirror import KINDS, UNPOOLING
from PIL import Image
from tabulate import tabulate

from revgraph import picture, zoo
from revgraph.errors import RevgraphError
from revgraph.paper import measure, sheet
from revgraph.recipe import Recipe
from revgraph.writing import write_all

PAPER = {("both", "switches"): -15, ("both", "masks"): -46, ("switches", "masks"): -36}
"""By how many per cent the first has less L2 error than the second, Sect. 3.3."""

COMPARED = (*PAPER, ("masks", "nothing"), ("switches", "nothing"), ("both", "nothing"))


@dataclass(frozen=True, slots=True)
class Trained:
    """An inverse that was trained to the end.

    Attributes:
        unpooling: One of UNPOOLING.
        given: One of KINDS.
        seed: Of its filters at the start.
        folder: Where it is, as a compilation, beside its history.
    """

    unpooling: str
    given: str
    seed: int
    folder: Path


UNINFORMED = Trained("", "not even y", -1, Path())
"""Whose reconstruction is the mean of the pictures learned from."""


@dataclass(frozen=True, slots=True)
class Found:
    """How far its reconstructions of the held-out pictures are off.

    Attributes:
        one: The inverse.
        own: (pictures, crops of each), Euclidean norms by the mean distance of two crops.
        another: The same from the y of another picture; None where there is none.
        bits: What it is given besides y, in bits for each picture.
    """

    one: Trained
    own: np.ndarray
    another: np.ndarray | None = None
    bits: float = 0.0


MEASURES = {
    "L2": lambda found: found.own,
    "squared": lambda found: found.own**2,
    "L2, y of another picture": lambda found: found.another,
}


def trained_in(folder: Path) -> list[Trained]:
    """The inverses that were trained to the end, in the order of the tables.

    Raises:
        RevgraphError: There are none.
    """
    found = []
    for path in sorted(folder.glob("inverses/*/*/*.reversed.onnx")):
        unpooling, (given, _, seed) = path.parent.parent.name, path.parent.name.partition(".")
        if unpooling in UNPOOLING and given in KINDS and seed.isdecimal():
            found.append(Trained(unpooling, given, int(seed), path.parent))
    if not found:
        what = f"nothing to evaluate in '{folder}'"
        raise RevgraphError(what, "no inverse was trained to its end there", "train.py -o makes some")
    order = [list(UNPOOLING), list(KINDS)]
    return sorted(found, key=lambda t: (order[0].index(t.unpooling), t.seed, order[1].index(t.given)))


def write(
    folder: Path,
    found: Sequence[Found],
    shown: Mapping[tuple[str, str], Sequence[Image.Image]],
    settings: Mapping[str, Any],
) -> None:
    """Print the tables; write results.csv, sheet.png and curves.png."""
    side = f"{settings['size']} x {settings['size']}"
    caption = f"Held-out pictures of {side}, reconstructed from {settings['at']} and what the columns say."
    names = [", ".join(filter(None, kind)) for kind in shown]
    tiles = list(zip(*shown.values(), strict=True))
    drawn = {
        folder / "sheet.png": sheet.grid(tiles, list(zoo.SAMPLES), names, caption),
        folder / "curves.png": _curves([each.one for each in found if each.one is not UNINFORMED]),
    }
    contents = {path: picture.encode(image, path) for path, image in drawn.items()}
    write_all(contents | {folder / "results.csv": sheet.table([_row(each) for each in found])})
    print(errors(found), differences(found), sep="\n\n")


# ----- Tables -----


def _row(found: Found) -> sheet.Row:
    """Of results.csv."""
    named = {"unpooling": found.one.unpooling, "given": found.one.given}
    seed = "" if found.one is UNINFORMED else found.one.seed
    values = {name: of(found) for name, of in MEASURES.items()}
    means = {name: None if each is None else float(each.mean()) for name, each in values.items()}
    return {**named, "seed": seed, "bits": found.bits, "crops": found.own.size, **means}


def errors(found: Sequence[Found]) -> str:
    """Mean and standard deviation over the seeds."""
    lines = []
    for kind, of in _by_kind(found).items():
        values = [[each for one in of if (each := take(one)) is not None] for take in MEASURES.values()]
        spreads = [_spread([each.mean() for each in per_seed], 3) for per_seed in values]
        lines.append([*kind, f"{of[0].bits:,.0f}", *spreads])
    return _table(["unpooling", "given", "bits", *MEASURES], lines)


def differences(found: Sequence[Found]) -> str:
    """By how many per cent one kind has less error than another.

    Seed by seed: mean and standard deviation; then, of the mean over the seeds, the 95 % interval over the
    pictures.
    """
    kinds = _by_kind(found)
    columns = [(how, measure) for how in UNPOOLING for measure in ("L2", "squared")]
    lines = []
    for one, other in COMPARED:
        line = [f"{one} against {other}", f"{PAPER[one, other]} %" if (one, other) in PAPER else ""]
        for how, name in columns:
            less = {each.one.seed: MEASURES[name](each) for each in kinds.get((how, one), ())}
            more = {each.one.seed: MEASURES[name](each) for each in kinds.get((how, other), ())}
            line.append(_change([(less[seed], more[seed]) for seed in less if seed in more]))
        lines.append(line)
    return _table(["error", "paper: L2", *(f"{how}: {name}" for how, name in columns)], lines)


def _by_kind(found: Sequence[Found]) -> dict[tuple[str, str], list[Found]]:
    kinds: dict[tuple[str, str], list[Found]] = {}
    for each in found:
        kinds.setdefault((each.one.unpooling, each.one.given), []).append(each)
    return kinds


def _change(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    """Of pairs of errors, a pair for each seed."""
    if not pairs:
        return ""
    seeds = _spread([100 * (less.mean() / more.mean() - 1) for less, more in pairs], 1)
    pictures = [np.mean([each[i].mean(axis=1) for each in pairs], axis=0) for i in (0, 1)]
    low, high = measure.interval(*pictures, statistic=_less)
    return f"{seeds} % ({low:.1f} to {high:.1f})"


def _less(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(100 * (a.mean(axis=axis) / b.mean(axis=axis) - 1))


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def _table(heads: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    return tabulate(lines, heads, tablefmt="github", disable_numparse=True)


# ----- Drawings -----


def image(recipe: Recipe, x: np.ndarray) -> Image.Image:
    """The picture that is fed as x, (C, H, W)."""
    mean, std = (np.array(values)[:, None, None] for values in (recipe.mean, recipe.std))
    return picture.image_of(np.clip(recipe.rgb((x * std + mean) / recipe.scale), 0, 1))


def _curves(trained: Sequence[Trained]) -> Image.Image:
    """Each kind's losses, of its first seed."""
    panels: dict[str, dict[str, list[float]]] = {}
    for one in trained:
        history = list(csv.DictReader(io.StringIO((one.folder / "history.csv").read_text(encoding="utf-8"))))
        for part in ("train", "validation"):
            losses = [float(epoch[part]) for epoch in history]
            panels.setdefault(f"{part}, unpooling: {one.unpooling}", {}).setdefault(one.given, losses)
    longest = max(len(losses) for lines in panels.values() for losses in lines.values())
    caption = "The mean squared error by the variance of the pictures, of one seed."
    return sheet.curves(panels, [str(epoch) for epoch in range(1, longest + 1)], "epoch", caption)
