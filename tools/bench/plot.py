"""Draw results.csv and growth.csv: `python tools/bench/plot.py FOLDER`."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

Row = dict[str, str]


def draw(folder: Path) -> None:
    """A picture of ratios for each batch, and one of growth, of what tables there are."""
    rows = _read(folder / "results.csv")
    for batch in sorted({int(row["batch"]) for row in rows}):
        ratios([row for row in rows if int(row["batch"]) == batch], folder / f"ratios.batch{batch}.png")
    if grown := _read(folder / "growth.csv"):
        growth(grown, folder / "growth.png")


def _read(file: Path) -> list[Row]:
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _label(row: Row) -> str:
    return f"{row['contender']} ({row['target']})" if row["target"] else row["contender"]


def ratios(rows: Sequence[Row], file: Path) -> None:
    """Times over that of the plain forward pass; hollow where the relative error exceeds a hundredth."""
    timed = [row for row in rows if row["ratio"] and "forward" not in row["contender"]]
    if not timed:
        return
    networks = list(dict.fromkeys(row["network"] for row in timed))
    labels = list(dict.fromkeys(map(_label, timed)))
    figure, axes = plt.subplots(figsize=(9, 0.6 * len(networks) + 1.5))
    colours = plt.get_cmap("tab20").colors
    for k, label in enumerate(labels):
        colour = colours[k % len(colours)]
        for right in (True, False):
            found = [row for row in timed if _label(row) == label and _is_right(row) == right]
            axes.scatter(
                [float(row["ratio"]) for row in found],
                [networks.index(row["network"]) + 0.7 * (k / len(labels) - 0.5) for row in found],
                edgecolors=[colour],
                facecolors=[colour] if right else "none",
                s=22,
            )
        axes.scatter([], [], color=[colour], label=label)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks(ticks := [1, 2, 3, 5, 10, 20, 50], map(str, ticks))
    axes.minorticks_off()
    axes.set_yticks(range(len(networks)), networks)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("time / plain forward pass (hollow: relative error above 0.01)")
    _legend(axes)
    _save(figure, file)


def _is_right(row: Row) -> bool:
    return not row["relative_error"] or float(row["relative_error"]) <= 1e-2


def _legend(axes: Any) -> None:
    below = -0.6 / axes.figure.get_figheight()
    place = {"loc": "upper center", "bbox_to_anchor": (0.45, below), "ncols": 2, "fontsize": 8}
    axes.legend(**place, frameon=False)


GROWTH = (
    ("milliseconds", {"plain_ms": "plain forward", "fused_ms": "fused", "pair_ms": "pair"}, 1.0),
    ("time / plain forward", {"ratio": "fused"}, 1.0),
    ("MiB per image", {"bottleneck_bytes": "bottleneck"}, 2.0**20),
    ("seconds", {"compile_seconds": "compilation"}, 1.0),
)
"""The lines of pictures, top to bottom: what the axis says, the columns drawn, their unit."""


def growth(rows: Sequence[Row], file: Path) -> None:
    """A column of pictures for each of size, batch and depth."""
    kinds = list(dict.fromkeys(row["axis"] for row in rows))
    targets = list(dict.fromkeys(row["target"] for row in rows))
    shape = len(GROWTH), len(kinds)
    figure, grid = plt.subplots(*shape, figsize=(3.4 * len(kinds), 2.3 * len(GROWTH)), squeeze=False)
    for column, kind in enumerate(kinds):
        for line, (unit, drawn, scale) in enumerate(GROWTH):
            axes = grid[line][column]
            for target in targets:
                for key, label in drawn.items():
                    found = [r for r in rows if (r["axis"], r["target"]) == (kind, target) and r[key]]
                    values = [float(row["value"]) for row in found]
                    axes.plot(
                        values, [float(r[key]) / scale for r in found], "o-", label=f"{label} ({target})"
                    )
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            if column == 0:
                axes.set_ylabel(unit)
                axes.legend(fontsize=7)
        grid[-1][column].set_xlabel(kind)
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:
    figure.savefig(file, dpi=100, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
