"""Fig. 1: from top to bottom the picture, DeConvNet, SaliNet and DeSaliNet of the strongest class."""

from collections.abc import Sequence

from PIL import Image

from revgraph import neuron
from revgraph.paper import measure, sheet
from revgraph.paper.subject import Pictures, Subject
from revgraph.variants import NAMED, title

STRONGEST = (neuron.parse("max"),)


def figure(subject: Subject, pictures: Pictures) -> sheet.Figure:
    """A column for each picture."""
    rows = [(method, subject.layers.logits) for method in NAMED]
    return below_each_other(subject, pictures, rows, "Fig. 1: the picture, then its strongest class reversed")


def below_each_other(
    subject: Subject, pictures: Pictures, rows: Sequence[tuple[str, str]], caption: str
) -> sheet.Figure:
    """A column for each picture; below it the strongest neuron reversed by methods, each from a layer."""
    found = [
        [subject.explain(image, method, at, STRONGEST)[0] for _, image in pictures] for method, at in rows
    ]
    tiles: list[list[Image.Image | None]] = [[each.crop for each in found[0]]]
    tiles += [[sheet.tone(each.x_hat) for each in row] for row in found]
    labels = [next((row[j].label for row in found if row[j].label), None) for j in range(len(pictures))]
    columns = [
        f"{name}: {label}" if label else name for (name, _), label in zip(pictures, labels, strict=True)
    ]
    names = ["picture", *(f"{title(method)} from {at}" for method, at in rows)]
    numbers = [
        {"picture": name, "method": method, "at": at, **measure.about(each)}
        for (method, at), row in zip(rows, found, strict=True)
        for (name, _), each in zip(pictures, row, strict=True)
    ]
    return sheet.Figure(sheet.grid(tiles, names, columns, f"{caption}. {subject.name}."), numbers)
