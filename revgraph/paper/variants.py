"""Fig. 3: all eight variants from the last pool, in rows by unpooling and in columns by rectification."""

from revgraph.paper import measure, sheet
from revgraph.paper.subject import STRONGEST, Pictures, Subject

COLUMNS = ("desalinet", "deconvnet", "salinet", "identity")
"""The left two rectify what comes back, the right two do not; of each two the first has the masks."""

ROWS = {"": "by switches", "-centre": "to the centre"}


def figure(subject: Subject, pictures: Pictures) -> sheet.Figure:
    """The first picture's strongest neuron of the last pool; LRN is the identity in all."""
    (name, image), *_ = pictures
    at = subject.layers.pool
    found = [
        [subject.explain(image, method + end, at, STRONGEST, lrn="identity")[0] for method in COLUMNS]
        for end in ROWS
    ]
    left = found[0][0].crop, None
    tiles = [
        [beside, *(sheet.tone(each.x_hat) for each in row)] for beside, row in zip(left, found, strict=True)
    ]
    heads = ["RU o RU^BP: DeSaliNet", "RU: DeConvNet", "RU^BP: SaliNet", "1: the masks and RU left out"]
    numbers = [
        {"picture": name, "at": at, "variant": method + end, **measure.about(each)}
        for end, row in zip(ROWS, found, strict=True)
        for method, each in zip(COLUMNS, row, strict=True)
    ]
    rows = [f"unpooled {text}" for text in ROWS.values()]
    caption = f"Fig. 3: the eight variants from {at}, {found[0][0].summary}. {subject.name}."
    return sheet.Figure(sheet.grid(tiles, rows, [name, *heads], caption), numbers)
