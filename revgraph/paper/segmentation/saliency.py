"""Saliency maps of whole pictures, by a reversed network or of a fixed blob about the middle."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from revgraph import feeding, neuron, picture
from revgraph.neuron import Neuron
from revgraph.paper.library import library
from revgraph.paper.subject import Subject

Array = np.ndarray

BASELINE = "baseline"
"""The method that needs no network: Table 1's Gaussian blob."""

SIDE, SIGMA = 125, 24.0
"""The blob's window and standard deviation in pixels."""

LRN = {"desalinet": "bp"}
"""Footnote 5. SaliNet's own is the BP-reversal, the others' the identity."""


@dataclass(frozen=True, slots=True)
class Saliency:
    """What a method makes of a picture.

    Attributes:
        map: (H, W), not negative.
        shown: What there is to look at: x_hat by the tone map of footnote 4, or the blob.
        label: What the network calls the picture, where it has names.
    """

    map: Array
    shown: Image.Image
    label: str | None


def shrunk(image: Image.Image, shorter: int) -> Image.Image:
    """The picture, RGB, its shorter side so many pixels; bicubic."""
    height, width = feeding.kept_shape(image, shorter)
    return image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)


def saliency(subject: Subject, method: str, image: Image.Image, selector: str) -> Saliency:
    """The L-infinity norm over RGB of x_hat, from the strongest channel of the logits (Sect. 3.5).

    Args:
        subject: The network.
        method: A variant, or "baseline".
        image: A shrunk picture.
        selector: "positive" or "indicator".

    Raises:
        NotFiniteError: Its scores or what comes back is not finite.
        RevgraphError: The network cannot take the picture.
    """
    if method == BASELINE:
        blob = gaussian((image.height, image.width))
        return Saliency(blob, picture.image_of(blob), None)
    explainer = subject.explainer(method, subject.layers.logits, LRN.get(method), min(image.size))
    trace = explainer.session.forward(explainer.feed(image))
    channel = int(trace.y[0].reshape(trace.y.shape[1], -1).max(axis=1).argmax())
    p = positive(trace.y, channel) if selector == "positive" else indicator(trace.y, channel)
    x_hat = explainer.rgb(explainer.session.reverse(trace, p)[0])
    shown = picture.image_of(picture.tone_map(x_hat))
    return Saliency(picture.saliency(x_hat), shown, explainer.label(channel))


def positive(y: Array, channel: int) -> Array:
    """p for y (1, C, ...): 1 wherever the channel is positive; if that is nowhere, at its largest."""
    return neuron.project(Neuron("class", (channel,)), y, np.random.default_rng(0))


def indicator(y: Array, channel: int) -> Array:
    """p for y (1, C, ...): 1 everywhere in the channel."""
    p = np.zeros_like(y)
    p[:, channel] = 1
    return p


def gaussian(size: tuple[int, int]) -> Array:
    """Table 1's baseline for pictures of (H, W): a Gaussian in the middle less four in its corners."""
    height, width = size
    blob = _bump(height, (height - 1) / 2)[:, None] * _bump(width, (width - 1) / 2)
    for row in (0, height - 1):
        for column in (0, width - 1):
            blob = blob - _bump(height, row)[:, None] * _bump(width, column)
    return np.asarray((blob - blob.min()) / (np.ptp(blob) or 1.0))


def _bump(length: int, centre: float) -> Array:
    away = np.abs(np.arange(length) - centre)
    return np.where(away <= SIDE // 2, np.exp(-(away**2) / (2 * SIGMA**2)), 0.0)


def smoothed(saliency_map: Array, blur: float, centred: bool) -> Array:
    """The map as we change it, beyond the paper: blurred, and weighted towards the middle.

    Args:
        saliency_map: (H, W).
        blur: Standard deviation in pixels; 0 leaves the map as it is.
        centred: Whether it is multiplied by a Gaussian of a third of either side.
    """
    changed = library("scipy.ndimage").gaussian_filter(saliency_map, blur) if blur else saliency_map
    if centred:
        for axis, length in enumerate(changed.shape):
            away = (np.arange(length) - (length - 1) / 2) / (length / 3)
            changed = changed * np.expand_dims(np.exp(-(away**2) / 2), 1 - axis)
    return np.asarray(changed)
