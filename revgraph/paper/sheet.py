"""Figures drawn: pictures in a grid, or curves, with a caption below and the numbers beside."""

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from revgraph import picture, variants
from revgraph.paper import measure
from revgraph.paper.library import library
from revgraph.paper.subject import STRONGEST, Pictures, Subject

INCH = 2.2
"""A tile's width; text is 8 points high."""

DPI = 200

SMALL: Mapping[str, Any] = {"fontsize": 8, "parse_math": False}
"""How names are written: a dollar in one is a dollar."""

Row = Mapping[str, Any]
"""Of the CSV: numbers, names, or None."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What a command writes.

    Attributes:
        image: The drawing.
        numbers: Rows of the CSV beside it, each with the same columns.
    """

    image: Image.Image
    numbers: Sequence[Row]


def table(numbers: Sequence[Row]) -> bytes:
    """The numbers as a CSV file, to six digits."""
    text = io.StringIO()
    rows = csv.DictWriter(text, list(numbers[0]), lineterminator="\n")
    rows.writeheader()
    rows.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in numbers)
    return text.getvalue().encode()


def tone(x_hat: np.ndarray) -> Image.Image:
    """The tone map of footnote 4."""
    return picture.image_of(picture.tone_map(x_hat))


def below_each_other(
    subject: Subject, pictures: Pictures, rows: Sequence[tuple[str, str]], caption: str
) -> Figure:
    """A column for each picture; below it the strongest neuron reversed by methods, each from a layer."""
    found = [
        [subject.explain(image, method, at, STRONGEST)[0] for _, image in pictures] for method, at in rows
    ]
    tiles: list[list[Image.Image | None]] = [[each.crop for each in found[0]]]
    tiles += [[tone(each.x_hat) for each in row] for row in found]
    labels = [next((row[j].label for row in found if row[j].label), None) for j in range(len(pictures))]
    columns = [
        f"{name}: {label}" if label else name for (name, _), label in zip(pictures, labels, strict=True)
    ]
    names = ["picture", *(f"{variants.title(method)} from {at}" for method, at in rows)]
    numbers = [
        {"picture": name, "method": method, "at": at, **measure.about(each)}
        for (method, at), row in zip(rows, found, strict=True)
        for (name, _), each in zip(pictures, row, strict=True)
    ]
    return Figure(grid(tiles, names, columns, f"{caption}. {subject.name}."), numbers)


def grid(
    tiles: Sequence[Sequence[Image.Image | None]], rows: Sequence[str], columns: Sequence[str], caption: str
) -> Image.Image:
    """Pictures in rows and columns; None leaves a place empty.

    Args:
        tiles: Row by row.
        rows: What each row is called, on its left.
        columns: What each column is called, on top.
        caption: Below.
    """
    plot = _pyplot()
    height = INCH * max(t.height / t.width for row in tiles for t in row if t is not None)
    drawn, axes = plot.subplots(
        len(rows),
        len(columns),
        figsize=(INCH * len(columns) + 0.6, height * len(rows) + 1.2),
        squeeze=False,
        layout="compressed",
    )
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            at = axes[i][j]
            at.set(xticks=[], yticks=[])
            at.spines[:].set_visible(False)
            if tile is not None:
                at.imshow(tile.convert("RGB"), interpolation="antialiased")  # grey would be coloured
            if i == 0:
                at.set_title(textwrap.fill(columns[j], 26), **SMALL)
            if j == 0:
                at.set_ylabel(textwrap.fill(rows[i], 22), **SMALL)
    return _finished(plot, drawn, caption)


def curves(
    panels: Mapping[str, Mapping[str, Sequence[float]]], ticks: Sequence[str], axis: str, caption: str
) -> Image.Image:
    """Panels side by side, each with a line for each name.

    Args:
        panels: What is on the upright axis -> name -> its values, one for each tick.
        ticks: What the places along the other axis are called.
        axis: What that axis is.
        caption: Below.
    """
    plot = _pyplot()
    drawn, axes = plot.subplots(
        1, len(panels), figsize=(5 * len(panels), 4.2), squeeze=False, layout="constrained"
    )
    for at, (title, lines) in zip(axes[0], panels.items(), strict=True):
        for name, values in lines.items():
            at.plot(range(len(values)), values, marker="o", markersize=3, label=name)
        at.set(ylim=(-0.25, 1.05), xlabel=axis, ylabel=title, xticks=range(len(ticks)))
        at.set_xticklabels(ticks, rotation=90, **SMALL)
        at.grid(alpha=0.3)
    axes[0][0].legend(fontsize=7)
    return _finished(plot, drawn, caption)


def _finished(plot: Any, drawn: Any, caption: str) -> Image.Image:
    width = drawn.get_size_inches()[0]
    drawn.supxlabel(textwrap.fill(caption, int(width * 15)), color="#333333", **SMALL)
    encoded = io.BytesIO()
    drawn.savefig(encoded, format="png", dpi=DPI, bbox_inches="tight")
    plot.close(drawn)
    return Image.open(encoded).convert("RGB")


def _pyplot() -> Any:
    library("matplotlib").use("agg")
    return library("matplotlib.pyplot")
