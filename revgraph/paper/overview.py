"""Fig. 1: from top to bottom the picture, DeConvNet, SaliNet and DeSaliNet of the strongest class."""

from revgraph.paper import sheet
from revgraph.paper.subject import Pictures, Subject
from revgraph.variants import NAMED


def figure(subject: Subject, pictures: Pictures) -> sheet.Figure:
    """A column for each picture."""
    rows = [(method, subject.layers.logits) for method in NAMED]
    caption = "Fig. 1: the picture, then its strongest class reversed"
    return sheet.below_each_other(subject, pictures, rows, caption)
