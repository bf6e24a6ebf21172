"""Sect. 3.1: local response normalisation reversed as the identity, or by its derivative."""

import numpy as np

from revgraph.errors import RevgraphError
from revgraph.paper import measure, sheet
from revgraph.paper.subject import STRONGEST, Pictures, Subject
from revgraph.variants import NAMED, title


def figure(subject: Subject, pictures: Pictures) -> sheet.Figure:
    """Of the first picture: a column for each method and layer, the two reversals below each other."""
    if not subject.normalises:
        why = "it has no local response normalisation"
        remedy = "give one that has, AlexNet or GoogLeNet, with --model"
        raise RevgraphError(f"cannot draw 'lrn' of '{subject.name}'", why, remedy)
    (name, image), *_ = pictures
    columns = [(at, method) for at in (subject.layers.pool, subject.layers.logits) for method in NAMED]
    pairs, numbers = [], list[sheet.Row]()
    for at, method in columns:
        identity, bp = (
            subject.explain(image, method, at, STRONGEST, lrn=lrn)[0].x_hat for lrn in ("identity", "bp")
        )
        pairs.append((identity, bp))
        numbers.append(
            {
                "picture": name,
                "at": at,
                "method": method,
                "relative difference": measure.relative(_scaled(identity), _scaled(bp)),
                "correlation": measure.correlation(identity, bp),
            }
        )
    tiles = [[sheet.tone(pair[i]) for pair in pairs] for i in range(2)]
    heads = [
        f"{at}: {title(method)} (differ by {row['relative difference']:.2f})"
        for (at, method), row in zip(columns, numbers, strict=True)
    ]
    caption = f"Sect. 3.1: {name}, LRN reversed in two ways; how they differ, both of unit norm"
    return sheet.Figure(sheet.grid(tiles, ["identity", "BP"], heads, f"{caption}. {subject.name}."), numbers)


def _scaled(x_hat: np.ndarray) -> np.ndarray:
    """Of unit norm: the derivative also scales, which no picture shows."""
    return x_hat / (measure.norm(x_hat) or 1.0)
