"""What was found, as tables, as a sheet of reconstructions and as learning curves."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from mirror import KINDS, UNPOOLING
from PIL import Image
from tabulate import tabulate

from revgraph import picture, zoo
from revgraph.errors import RevgraphError
from revgraph.paper import sheet
from revgraph.recipe import Recipe

PAPER = {("both", "switches"): -15, ("both", "masks"): -46, ("switches", "masks"): -36}
"""By how many per cent the first has less L2 error than the second, Sect. 3.3."""

COMPARED = (*PAPER, ("masks", "nothing"), ("switches", "nothing"), ("both", "nothing"))

UNINFORMED = "not even y"
"""Given nothing at all, the best is the mean of the pictures learned from."""

MEASURES = {"l2": "L2", "squared": "squared", "another": "L2, y of another picture"}

Row = dict[str, str | float]


@dataclass(frozen=True, slots=True, order=True)
class Trained:
    """An inverse that was trained to the end.

    Attributes:
        unpooling: One of UNPOOLING.
        given: One of KINDS.
        seed: As a text.
        folder: Where it is, as a compilation, beside its history.
    """

    unpooling: str
    given: str
    seed: str
    folder: Path

    @classmethod
    def all_in(cls, folder: Path) -> list[Self]:
        """All of them, in the order of the tables.

        Raises:
            RevgraphError: There are none.
        """
        found = {path.parent for path in folder.glob("inverses/*/*/*.reversed.onnx")}
        if not found:
            what = f"nothing to evaluate in '{folder}'"
            raise RevgraphError(what, "no inverse was trained to its end there", "train.py -o makes some")
        made = [cls(f.parent.name, *f.name.split("."), f) for f in found]
        return sorted(
            made,
            key=lambda one: (list(UNPOOLING).index(one.unpooling), one.seed, list(KINDS).index(one.given)),
        )


def row(unpooling: str, given: str, seed: str, own: Mapping[str, float], another: float | str = "") -> Row:
    """Of results.csv."""
    return {"unpooling": unpooling, "given": given, "seed": seed, **own, "another": another}


# ----- Tables -----


def errors(rows: Sequence[Row]) -> str:
    """Mean and standard deviation over the seeds."""
    lines = []
    for kind in dict.fromkeys((r["unpooling"], r["given"]) for r in rows):
        of = [r for r in rows if (r["unpooling"], r["given"]) == kind]
        lines.append([*kind, *(_spread([float(r[m]) for r in of if r[m] != ""], 3) for m in MEASURES)])
    return _table(["unpooling", "given", *MEASURES.values()], lines)


def differences(rows: Sequence[Row]) -> str:
    """By how many per cent one kind has less error than another, seed by seed: mean and deviation."""
    found = {(r["unpooling"], r["given"], r["seed"]): r for r in rows}
    seeds = dict.fromkeys(r["seed"] for r in rows)
    columns = [(how, measure) for how in UNPOOLING for measure in ("l2", "squared")]
    lines = []
    for one, other in COMPARED:
        line = [f"{one} against {other}", f"{PAPER[one, other]} %" if (one, other) in PAPER else ""]
        for how, measure in columns:
            pairs = [(found.get((how, one, s)), found.get((how, other, s))) for s in seeds]
            ratios = [float(a[measure]) / float(b[measure]) for a, b in pairs if a and b]
            line.append(_spread([100 * (ratio - 1) for ratio in ratios], 1, " %"))
        lines.append(line)
    return _table(["error", "paper", *(f"{how}, {MEASURES[m]}" for how, m in columns)], lines)


def _spread(values: Sequence[float], digits: int, unit: str = "") -> str:
    if not values:
        return ""
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}{unit}"


def _table(heads: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    return tabulate(lines, heads, tablefmt="github", disable_numparse=True)


# ----- Drawings -----


def image(recipe: Recipe, x: np.ndarray) -> Image.Image:
    """The picture that is fed as x, (C, H, W)."""
    mean, std = (np.array(values)[:, None, None] for values in (recipe.mean, recipe.std))
    return picture.image_of(np.clip(recipe.rgb((x * std + mean) / recipe.scale), 0, 1))


def draw(
    folder: Path,
    trained: Sequence[Trained],
    shown: Mapping[tuple[str, str], Sequence[Image.Image]],
    settings: Mapping[str, Any],
) -> None:
    """sheet.png: the samples, and what each kind makes of them; curves.png."""
    names = [", ".join(filter(None, (given, how))) for how, given in shown]
    tiles = list(zip(*shown.values(), strict=True))
    side = f"{settings['size']} x {settings['size']}"
    caption = f"Held-out pictures of {side}, reconstructed from {settings['at']} and what the columns say."
    picture.write(sheet.grid(tiles, list(zoo.SAMPLES), names, caption), folder / "sheet.png")
    caption = "The mean squared error by the variance of the pictures."
    picture.write(sheet.curves(*_histories(trained), "epoch", caption), folder / "curves.png")


def _histories(trained: Sequence[Trained]) -> tuple[dict[str, dict[str, list[float]]], list[str]]:
    """Panel -> line -> losses, of the first seed of each kind; and the epochs."""
    panels: dict[str, dict[str, list[float]]] = {}
    for one in (one for one in trained if one.seed == trained[0].seed):
        with (one.folder / "history.csv").open(newline="", encoding="utf-8") as stream:
            history = list(csv.DictReader(stream))
        for part in ("train", "validation"):
            losses = [float(epoch[part]) for epoch in history]
            panels.setdefault(f"{part}, unpooling: {one.unpooling}", {})[one.given] = losses
    longest = max(len(losses) for lines in panels.values() for losses in lines.values())
    return panels, [str(epoch) for epoch in range(1, longest + 1)]
