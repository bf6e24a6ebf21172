"""Fig. 5: what looks like the object's place is the neuron's support, and no matter of weights or data."""

import numpy as np
from PIL import Image

from revgraph import picture
from revgraph.paper import measure, randomise, sheet
from revgraph.paper.subject import STRONGEST, Pictures, Subject

POWER = 0.1
"""Of the renormalisation sign(x) |x|^0.1, which shows the weakest parts too."""

DEVIATION = 0.01
"""Of the random weights: the authors'."""


def figure(subject: Subject, pictures: Pictures) -> sheet.Figure:
    """A row for each picture: DeSaliNet, renormalised, without a bottleneck, and with random weights too."""
    at, layers = subject.layers.pool, randomise.products(subject.path)
    random = subject.of(randomise.randomised(subject.model, layers, size=DEVIATION))
    tiles: list[list[Image.Image | None]] = []
    numbers: list[sheet.Row] = []
    for name, image in pictures:
        (found,) = subject.explain(image, "desalinet", at, STRONGEST)
        same = [found.peak.neuron]
        x_hats = {
            "DeSaliNet": found.x_hat,
            "renormalised": np.sign(found.x_hat) * np.abs(found.x_hat) ** POWER,
            "no bottleneck": subject.explain(image, "identity-centre", at, same)[0].x_hat,
            "no bottleneck, random weights": random.explain(image, "identity-centre", at, same)[0].x_hat,
        }
        tiles.append([found.crop, *map(sheet.tone, x_hats.values())])
        for what, x_hat in x_hats.items():
            saliency = picture.saliency(x_hat)
            top, bottom, left, right = measure.box(saliency)
            numbers.append(
                {
                    "picture": name,
                    "at": at,
                    "image": what,
                    "support height": bottom - top,
                    "support width": right - left,
                    "concentration": measure.concentration(saliency),
                }
            )
    caption = (
        f"Fig. 5: the strongest neuron of {at}. Its support is wider than it looks, and the architecture's"
    )
    drawn = sheet.grid(
        tiles, [name for name, _ in pictures], ["picture", *x_hats], f"{caption}. {subject.name}."
    )
    return sheet.Figure(drawn, numbers)
