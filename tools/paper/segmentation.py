"""The tables that `revgraph segment` wrote, beside each other and the paper's Table 1. See README.md."""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

PAPER = {  # Table 1: PP and IoU of AlexNet, and of VGG-16
    "SaliNet": ((82.82, 57.07), (82.45, 56.33)),
    "DeSaliNet": ((82.31, 55.57), (83.29, 56.25)),
    "DeConvNet": ((75.85, 48.26), (76.52, 48.16)),
    "Baseline": ((78.97, 46.27), (78.97, 46.27)),
}

Row = dict[str, str]


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument(
        "folders", nargs="+", type=Path, help="each a run of revgraph segment; columns by its name"
    )
    made.add_argument("-o", "--output", type=Path, help="also all rows in one CSV, with a column `run`")
    chosen = made.parse_args()
    names = [folder.name for folder in chosen.folders]
    tables = [_read(folder / "table.csv") for folder in chosen.folders]
    differences = [_read(folder / "differences.csv") for folder in chosen.folders]
    for key, place in (("pp", 0), ("iou", 1)):
        print(_side_by_side(key, names, tables, place), end="\n\n")
    for key, place in (("pp", 0), ("iou", 1)):
        print(_side_by_side(key, names, differences, place), end="\n\n")
    if chosen.output:
        rows = [{"run": name, **row} for name, table in zip(names, tables, strict=True) for row in table]
        with chosen.output.open("w", newline="", encoding="utf-8") as stream:
            written = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            written.writeheader()
            written.writerows(rows)


def _read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _side_by_side(key: str, names: Sequence[str], tables: Sequence[list[Row]], place: int) -> str:
    """A line for each method, or pair of them: the paper's two networks, then each run with its interval."""
    cells: dict[str, list[str]] = {}
    for column, table in enumerate(tables):
        for row in table:
            line = cells.setdefault(_title(row), ["-"] * len(names))
            line[column] = (
                f"{float(row[key]):.1f} ({float(row[f'{key}_low']):.1f} to {float(row[f'{key}_high']):.1f})"
            )
    lines = [[title, *_paper(title, place), *line] for title, line in cells.items()]
    heads = [f"{key.upper()} %", "paper: AlexNet", "paper: VGG-16", *names]
    return tabulate(lines, heads, tablefmt="github", disable_numparse=True)


def _title(row: Row) -> str:
    return f"{row['method']} - {row['less']}" if "less" in row else row["method"]


def _paper(title: str, place: int) -> list[str]:
    one, _, other = title.partition(" - ")
    if one not in PAPER or (other and other not in PAPER):
        return ["-", "-"]
    less = PAPER.get(other, ((0.0, 0.0), (0.0, 0.0)))
    digits = 1 if other else 2
    return [
        f"{mine[place] - theirs[place]:.{digits}f}" for mine, theirs in zip(PAPER[one], less, strict=True)
    ]


if __name__ == "__main__":
    main()
