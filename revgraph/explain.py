"""From a picture to the picture that explains it: preprocess, forward, choose the neuron, reverse, draw."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from revgraph import neuron, panels
from revgraph.feeding import Feeder
from revgraph.neuron import Neuron, Peak
from revgraph.recipe import Recipe
from revgraph.session import Session, Trace

REDRAWS = 20
"""How often `random` tries another neuron where x_hat comes out all zero."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One neuron of one picture, reversed.

    Attributes:
        crop: What the network saw, RGB.
        x_hat: float32 (3, H, W), RGB.
        neuron: What was asked for.
        peak: The channel, position and score that p stands for.
        label: The class's name, where y has one channel per class.
        probability: The network's own output for that class, where it is one.
        vanished: The forward layer below which nothing was left, where x_hat is all zero.
    """

    crop: Image.Image
    x_hat: np.ndarray
    neuron: Neuron
    peak: Peak
    label: str | None
    probability: float | None
    vanished: str | None

    @property
    def summary(self) -> str:
        """The class or channel, and its score."""
        channel, position, score = self.peak
        if channel is None:
            return str(self.neuron)
        name = f"channel {channel}" if self.label is None else f"{self.label} ({channel})"
        where = "" if position is None else f" at {', '.join(map(str, position))}"
        chance = "" if self.probability is None else f", probability {self.probability:.2f}"
        return f"{name}{where}, score {score:.4g}{chance}"

    def draw(self, caption: str) -> Image.Image:
        """The input, the tone-mapped x_hat and the saliency map side by side."""
        return panels.explained(self.crop, self.x_hat, f"{caption}: {self.summary}")


class Explainer(Feeder):
    """Explains pictures with one session and one recipe.

    Args:
        session: Runs the network.
        recipe: As for Feeder, like what is raised.
        shorter: As for Feeder.
    """

    def __init__(self, session: Session, recipe: Recipe, shorter: int | None = None) -> None:
        super().__init__(session.pair, recipe, shorter)
        self.session = session

    def explain(
        self, image: Image.Image, neurons: Sequence[Neuron], rng: np.random.Generator
    ) -> Iterator[Explanation]:
        """One explanation per neuron; the forward graph runs once and the reversed graph on all of them."""
        trace = self.session.forward(self.feed(image))
        p = np.concatenate([neuron.project(n, trace.y, rng) for n in neurons])
        x_hat = self.session.reverse(trace, p)
        for row, chosen in enumerate(neurons):
            for _ in range(REDRAWS if chosen.kind == "random" and not x_hat[row].any() else 0):
                p[row] = neuron.project(chosen, trace.y, rng)[0]
                x_hat[row] = self.session.reverse(trace, p[row : row + 1])[0]
                if x_hat[row].any():
                    break
            yield self._explanation(image, trace, chosen, p[row], x_hat[row])

    def _explanation(
        self, image: Image.Image, trace: Trace, chosen: Neuron, p: np.ndarray, x_hat: np.ndarray
    ) -> Explanation:
        peak = neuron.describe(p, trace.y[0])
        label = self.label(peak.channel)
        return Explanation(
            self.crop(image),
            self.rgb(x_hat),
            chosen,
            peak,
            label,
            None if label is None else probability(next(iter(trace.outputs.values()))[0], trace.y[0], peak),
            None if x_hat.any() else self.session.vanishes_after(trace, p[None]),
        )


def probability(first: np.ndarray, y: np.ndarray, peak: Peak) -> float | None:
    """The network's first output for the class, if that output is a distribution over the classes.

    Args:
        first: Of one image, (C, ...).
        y: Of that image, (C, ...).
        peak: Whose channel is the class.
    """
    flat = first.reshape(-1)
    if peak.channel is None or first.shape[:1] != y.shape[:1] or flat.size != y.shape[0]:
        return None
    return float(flat[peak.channel]) if flat.min() >= 0 and abs(flat.sum() - 1) < 1e-3 else None
