"""Fig. 7: the bottleneck says where and with which sign, as the phase of a Fourier transform does."""

import numpy as np
from PIL import Image

from revgraph import neuron, picture
from revgraph.paper import measure, sheet
from revgraph.paper.subject import Pictures, Subject
from revgraph.variants import title

MIXTURE = (neuron.parse("mixture"),)
"""|N(0, 1)| over the channels: the positive random input."""


def figure(subject: Subject, pictures: Pictures) -> sheet.Figure:
    """A row for each picture: it, there and back, with random amplitudes, and two methods on random p."""
    at, tiles = subject.layers.logits, list[list[Image.Image | None]]()
    numbers: list[sheet.Row] = []
    for name, image in pictures:
        explained = {
            method: subject.explain(image, method, at, MIXTURE)[0] for method in ("desalinet", "deconvnet")
        }
        crop = next(iter(explained.values())).crop
        grey = np.asarray(crop.convert("L"), np.float64)
        back = np.fft.ifft2(np.fft.fft2(grey)).real
        panels = {
            "transformed and back": back,
            "random amplitudes": with_random_amplitudes(grey),
            **{title(method): found.x_hat.mean(axis=0) for method, found in explained.items()},
        }
        shown = [_centred(values) for values in panels.values()][1:]
        plain = (picture.image_of(values / 255) for values in (grey, back))
        tiles.append([*plain, *map(sheet.tone, shown)])
        vanished = {title(method): found.vanished for method, found in explained.items()}
        numbers += [
            {
                "picture": name,
                "image": what,
                "edges": measure.edges(np.stack([values] * 3), crop),
                measure.VANISHED: vanished.get(what),
            }
            for what, values in panels.items()
        ]
    caption = f"Fig. 7: methods from {at}, p random and positive"
    if any(row[measure.VANISHED] for row in numbers):
        caption += "; what is plain grey is all zero: rectified away"
    rows = [name for name, _ in pictures]
    return sheet.Figure(sheet.grid(tiles, rows, ["picture", *panels], f"{caption}. {subject.name}."), numbers)


def with_random_amplitudes(grey: np.ndarray) -> np.ndarray:
    """The real part of the inverse transform of |N(0, 1)| e^(i phase)."""
    spectrum = np.fft.fft2(grey)
    amplitudes = np.abs(np.random.default_rng(0).standard_normal(grey.shape))
    return np.asarray(np.fft.ifft2(amplitudes * np.exp(1j * np.angle(spectrum))).real)


def _centred(values: np.ndarray) -> np.ndarray:
    """Grey in three channels about its mean, which the tone map then shows as grey."""
    return np.stack([values - values.mean()] * 3)
