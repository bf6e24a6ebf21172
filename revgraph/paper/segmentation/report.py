"""What a finished run comes to: means, differences with their intervals, and a sheet."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from revgraph import picture, writing
from revgraph.paper import measure, sheet
from revgraph.paper.segmentation import pictures
from revgraph.paper.segmentation.table import PICTURES, SETTINGS, Row, Run

HEADS = ("method", "PP %", "95 %", "IoU %", "95 %", "median IoU", "pictures", "empty maps")


@dataclass(frozen=True, slots=True)
class Report:
    """The table.

    Attributes:
        means: A row for each method.
        differences: A row for each pair of methods.
        files: What was written, and what it is.
    """

    means: list[Row]
    differences: list[Row]
    files: dict[Path, str]

    def shown(self) -> list[list[str]]:
        """The means as lines under HEADS."""
        return [
            [
                row["method"],
                *(
                    cell
                    for key in ("pp", "iou")
                    for cell in (f"{row[key]:.2f}", f"{row[f'{key}_low']:.2f} to {row[f'{key}_high']:.2f}")
                ),
                f"{row['iou_median']:.2f}",
                str(row["pictures"]),
                str(row["empty"]),
            ]
            for row in self.means
        ]


def write(run: Run, folder: Path) -> Report:
    """The report of a run that has all its pictures, as files beside its lines.

    Raises:
        RevgraphError: A file cannot be written.
    """
    rows = run.rows()
    found = means(rows), differences(rows)
    drawn = pictures.figure(run.subject, run.cases, run.methods, run.settings)
    contents = {
        folder / "table.csv": (sheet.table(found[0]), "the table"),
        folder / "differences.csv": (sheet.table(found[1]), "of two methods on the same pictures"),
        folder / "sheet.png": (picture.encode(drawn, folder / "sheet.png"), "some of the pictures"),
    }
    writing.write_all({path: content for path, (content, _) in contents.items()})
    about = {path: what for path, (_, what) in contents.items()}
    asked = f"{run.settings.selector}, {run.settings.solver} and whatever else was asked"
    about |= {folder / PICTURES: "each picture by each method", folder / SETTINGS: asked}
    return Report(*found, about)


def means(rows: Sequence[Row]) -> list[Row]:
    """For each method the mean PP and IoU in percent, with 95 % bootstrap intervals."""
    return [
        {
            "method": method,
            **_percent("pp", _of(rows, method, "pp")),
            **_percent("iou", _of(rows, method, "iou")),
            "iou_median": round(100 * float(np.median(_of(rows, method, "iou", grouped=False))), 2),
            "pictures": sum(row["method"] == method for row in rows),
            "empty": int(_of(rows, method, "empty", grouped=False).sum()),
        }
        for method in dict.fromkeys(row["method"] for row in rows)
    ]


def differences(rows: Sequence[Row]) -> list[Row]:
    """For pairs of methods the mean difference on the same pictures, in percent, with its interval."""
    return [
        {
            "method": one,
            "less": other,
            **_percent("pp", _of(rows, one, "pp") - _of(rows, other, "pp")),
            **_percent("iou", _of(rows, one, "iou") - _of(rows, other, "iou")),
        }
        for one, other in _pairs(dict.fromkeys(row["method"] for row in rows))
    ]


def _pairs(methods: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each method beside each other one, and beside what it is without its cut or with others' maps."""
    plain = [method for method in methods if "," not in method]
    yield from itertools.combinations(plain, 2)
    for method in methods:
        if "," in method:
            yield method.partition(",")[0], method


def _of(rows: Sequence[Row], method: str, key: str, grouped: bool = True) -> np.ndarray:
    """A method's numbers: of each picture, or of each class, where there are classes."""
    mine = [row for row in rows if row["method"] == method]
    groups = dict.fromkeys(row["class"] for row in mine)
    if not grouped or len(groups) < 2:
        return np.array([row[key] for row in mine])
    return np.array([np.mean([row[key] for row in mine if row["class"] == group]) for group in groups])


def _percent(name: str, values: np.ndarray) -> dict[str, float]:
    low, high = measure.interval(values)
    numbers = {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
    return {key: round(100 * value, 2) for key, value in numbers.items()}
