"""Fig. 4: with the bottleneck held, the choice of the neuron changes little."""

import itertools

import numpy as np
from PIL import Image

from revgraph import picture
from revgraph.paper import measure, sheet
from revgraph.paper.subject import Pictures, Subject
from revgraph.variants import NAMED, title

REDRAWS = 20
CHOICES = ("the strongest", "another one", "a mixture of all")


def figure(subject: Subject, pictures: Pictures) -> sheet.Figure:
    """Of the first picture: rows by the choice of p, columns by layer and method."""
    (name, image), *_ = pictures
    ats = dict.fromkeys(subject.layers.all)
    columns = [(at, method) for at in ats for method in NAMED]
    found = [reversed_by_choice(subject, image, method, at) for at, method in columns]
    tiles = [[sheet.tone(x_hats[i]) for x_hats in found] for i in range(len(CHOICES))]
    numbers = [
        {"picture": name, "at": at, "method": method, **agreement(x_hats)}
        for (at, method), x_hats in zip(columns, found, strict=True)
    ]
    heads = [
        f"{at}: {title(method)} (r {row['strongest and another']:.2f})"
        for (at, method), row in zip(columns, numbers, strict=True)
    ]
    caption = f"Fig. 4: {name}, bottleneck held, p at the middle; r is the correlation of the first two rows"
    return sheet.Figure(sheet.grid(tiles, CHOICES, heads, f"{caption}. {subject.name}."), numbers)


def reversed_by_choice(subject: Subject, image: Image.Image, method: str, at: str) -> list[np.ndarray]:
    """x_hat of the strongest channel at the middle, of another one there that leaves something, and of all.

    The last by |N(0, 1)|, the same for each method.
    """
    explainer, rng = subject.explainer(method, at), np.random.default_rng(0)
    trace = explainer.session.forward(explainer.feed(image))
    middle = tuple((n - 1) // 2 for n in trace.y.shape[2:])
    channels = trace.y.shape[1]
    strongest = int(trace.y[(0, slice(None), *middle)].argmax())

    def x_hat(weights: np.ndarray) -> np.ndarray:
        p = np.zeros_like(trace.y)
        p[(0, slice(None), *middle)] = weights
        return explainer.rgb(explainer.session.reverse(trace, p)[0])

    others = rng.permutation(np.delete(np.arange(channels), strongest))[:REDRAWS]
    mixture = np.abs(rng.standard_normal(channels))
    one_hot = np.eye(channels)
    drawn = (x_hat(one_hot[c]) for c in others)
    another = next((found for found in drawn if found.any()), np.zeros_like(x_hat(mixture)))
    return [x_hat(one_hot[strongest]), another, x_hat(mixture)]


def agreement(x_hats: list[np.ndarray]) -> dict[str, float]:
    """How far each two of the three agree: as signed images, and their maps by rank where either is lit."""
    names = ("strongest", "another", "mixture")
    numbers = {}
    for (a, first), (b, second) in itertools.combinations(zip(names, x_hats, strict=True), 2):
        numbers[f"{a} and {b}"] = measure.correlation(first, second)
        maps = picture.saliency(first), picture.saliency(second)
        lit = (maps[0] > 0) | (maps[1] > 0)
        numbers[f"{a} and {b}, maps by rank"] = measure.rank_correlation(*(m[lit] for m in maps))
    return numbers
