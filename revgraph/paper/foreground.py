"""Fig. 6: which methods single out the foreground, at the last pool and at the logits."""

from revgraph.paper import sheet
from revgraph.paper.subject import Pictures, Subject
from revgraph.variants import NAMED


def figure(subject: Subject, pictures: Pictures) -> sheet.Figure:
    """A column for each picture, the three methods from either layer below it."""
    ats = dict.fromkeys((subject.layers.pool, subject.layers.logits))
    rows = [(method, at) for at in ats for method in NAMED]
    caption = "Fig. 6: SaliNet and DeSaliNet lean to the foreground, DeConvNet is nearly uniform"
    return sheet.below_each_other(subject, pictures, rows, f"{caption} (so the paper)")
