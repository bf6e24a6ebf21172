"""Beyond the paper: a map that stays when the weights are made random explains no network.

The cascade of J. Adebayo et al., "Sanity Checks for Saliency Maps" (NeurIPS 2018): layers lose their weights
from the top down, and each map is held against the trained network's.
"""

from collections.abc import Sequence

import numpy as np

from revgraph import picture
from revgraph.paper import measure, randomise, sheet
from revgraph.paper.subject import STRONGEST, Pictures, Subject
from revgraph.variants import VARIANTS

STEPS = 10
"""At most so many depths, evenly spread."""


def figure(subject: Subject, pictures: Pictures) -> sheet.Figure:
    """Curves over the number of layers made random: SSIM and rank correlation, a line for each variant.

    All maps are of the trained network's strongest class, from the logits.
    """
    at, layers = subject.layers.logits, randomise.products(subject.path)[::-1]
    trained = {
        (variant, name): subject.explain(image, variant, at, STRONGEST)[0]
        for variant in VARIANTS
        for name, image in pictures
    }
    numbers: list[sheet.Row] = []
    depths = sorted({round(d) for d in np.linspace(1, len(layers), STEPS)})
    for depth in depths:
        random = subject.of(randomise.randomised(subject.model, set(layers[:depth])))
        for (variant, name), found in trained.items():
            changed = random.explain(dict(pictures)[name], variant, at, [found.peak.neuron])[0]
            maps = picture.saliency(found.x_hat), picture.saliency(changed.x_hat)
            numbers.append(
                {
                    "picture": name,
                    "variant": variant,
                    "random layers": depth,
                    "down to": layers[depth - 1],
                    "ssim": measure.similarity(*maps),
                    "rank correlation": measure.rank_correlation(*maps),
                }
            )
    panels = {
        title: {
            variant: [1.0, *(_mean(numbers, column, variant, depth) for depth in depths)]
            for variant in VARIANTS
        }
        for title, column in (("SSIM", "ssim"), ("rank correlation", "rank correlation"))
    }
    ticks = ["trained", *(f"{depth}: {layers[depth - 1]}" for depth in depths)]
    caption = (
        f"Weights random from the top down; maps from {at}, mean of {len(pictures)} pictures. {subject.name}."
    )
    return sheet.Figure(sheet.curves(panels, ticks, "random down to", caption), numbers)


def _mean(numbers: Sequence[sheet.Row], column: str, variant: str, depth: int) -> float:
    return float(
        np.mean(
            [row[column] for row in numbers if (row["variant"], row["random layers"]) == (variant, depth)]
        )
    )
