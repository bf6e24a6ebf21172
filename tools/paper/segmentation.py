"""The tables that `revgraph segment` wrote, beside each other and the paper's Table 1. See README.md."""

import argparse
import csv
from collections.abc import Mapping
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
    runs = {
        name: {folder.name: _read(folder / f"{name}.csv") for folder in chosen.folders}
        for name in ("table", "differences")
    }
    for tables in runs.values():
        for place, key in enumerate(("pp", "iou")):
            print(_side_by_side(key, tables, place), end="\n\n")
    if chosen.output:
        rows = [
            {"run": name, **row} for tables in runs.values() for name, rows in tables.items() for row in rows
        ]
        with chosen.output.open("w", newline="", encoding="utf-8") as stream:
            columns = list(dict.fromkeys(key for row in rows for key in row))
            written = csv.DictWriter(stream, columns, lineterminator="\n")
            written.writeheader()
            written.writerows(rows)


def _read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _side_by_side(key: str, tables: Mapping[str, list[Row]], place: int) -> str:
    """A line for each method, or pair of them: the paper's two networks, then each run with its interval."""
    cells: dict[str, list[str]] = {}
    for column, table in enumerate(tables.values()):
        for row in table:
            line = cells.setdefault(_title(row), ["-"] * len(tables))
            line[column] = (
                f"{float(row[key]):.1f} ({float(row[f'{key}_low']):.1f} to {float(row[f'{key}_high']):.1f})"
            )
    lines = [[title, *_paper(title, place), *line] for title, line in cells.items()]
    heads = [f"{key.upper()} %", "paper: AlexNet", "paper: VGG-16", *tables]
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
