"""Six small networks by their weights alone: each framework's script builds the same network from them.

Kernels are (out, in / groups, height, width), that of a fully connected layer over planes included.
"""

import zlib

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

# Height and width differ, so that an exporter which swaps them is noticed.
HEIGHT, WIDTH, CLASSES = 24, 20, 5

Shape = tuple[int, int, int, int]

KERNELS: dict[str, dict[str, Shape]] = {
    "plain": {
        "conv1": (8, 3, 5, 5),
        "conv2": (12, 8, 3, 3),
        "fc1": (16, 12, 5, 4),
        "fc2": (CLASSES, 16, 1, 1),
    },
    "lrn": {
        "conv1": (12, 3, 3, 3),
        "conv2": (8, 12, 3, 3),
        "fc": (CLASSES, 8, 5, 4),
    },
    "residual": {
        "stem": (8, 3, 3, 3),
        "conv1a": (8, 8, 3, 3),
        "conv1b": (8, 8, 3, 3),
        "conv2a": (12, 8, 3, 3),
        "conv2b": (12, 12, 3, 3),
        "shortcut": (12, 8, 1, 1),
        "fc": (CLASSES, 12, 1, 1),
    },
    "inception": {
        "stem": (8, 3, 3, 3),
        "one": (4, 8, 1, 1),
        "three_reduce": (4, 8, 1, 1),
        "three": (6, 4, 3, 3),
        "five_reduce": (3, 8, 1, 1),
        "five": (4, 3, 5, 5),
        "max_project": (4, 8, 1, 1),
        "average_project": (3, 8, 1, 1),
        "last": (12, 21, 1, 1),
        "fc": (CLASSES, 12, 1, 1),
    },
    "depthwise": {
        "stem": (8, 3, 3, 3),
        "depthwise1": (8, 1, 3, 3),
        "project1": (8, 8, 1, 1),
        "expand2": (16, 8, 1, 1),
        "depthwise2": (16, 1, 3, 3),
        "project2": (12, 16, 1, 1),
        "fc": (CLASSES, 12, 1, 1),
    },
    "excitation": {
        "stem": (8, 3, 3, 3),
        "depthwise": (8, 1, 3, 3),
        "squeeze": (4, 8, 1, 1),
        "excite": (8, 4, 1, 1),
        "project": (8, 8, 1, 1),
        "head": (16, 8, 1, 1),
        "fc": (CLASSES, 16, 1, 1),
    },
}

NORMALISED = {"residual": ("stem", "conv1a", "conv1b", "conv2a", "conv2b", "shortcut")}
"""The convolutions that a BatchNormalization follows in place of a bias."""

LRN = {"size": 5, "alpha": 0.5, "beta": 0.75, "k": 1.0}
"""y = x / (k + alpha / size * the sum of squares)^beta, with so large an alpha that it matters."""

GAINS = {"depthwise": {"stem": 4.0, "expand2": 3.0}}
"""Kernels made larger: without, no activation would come near ReLU6's bound."""


def weights(network: str) -> dict[str, Array]:
    """Every array of a network: `<layer>.weight`; `.bias`, or `.scale`, `.shift`, `.mean` and `.variance`.

    A name's numbers depend on nothing but the name, so that changing one layer leaves the others alone.
    """
    arrays = {}
    for layer, shape in KERNELS[network].items():
        rng, out = _rng(f"{network}/{layer}"), shape[0]
        he = GAINS.get(network, {}).get(layer, 1.0) * np.sqrt(2 / np.prod(shape[1:]))
        arrays[f"{layer}.weight"] = he * rng.standard_normal(shape)
        if layer in NORMALISED.get(network, ()):
            arrays[f"{layer}.scale"] = rng.uniform(0.5, 1.5, out)
            arrays[f"{layer}.shift"] = 0.1 * rng.standard_normal(out)
            arrays[f"{layer}.mean"] = 0.1 * rng.standard_normal(out)
            arrays[f"{layer}.variance"] = rng.uniform(0.5, 1.5, out)
        else:
            arrays[f"{layer}.bias"] = 0.1 * rng.standard_normal(out)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def images() -> Array:
    """Two images (2, 3, 24, 20) of waves and noise, in steps of 1/64, which compress well."""
    rng = _rng("images")
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    x = np.zeros((2, 3, HEIGHT, WIDTH))
    for plane in x.reshape(-1, HEIGHT, WIDTH):
        for _ in range(4):
            along, across = rng.uniform(-0.9, 0.9, 2)
            plane += rng.standard_normal() * np.cos(along * rows + across * columns + rng.uniform(0, 6))
        plane += 0.3 * rng.standard_normal(plane.shape)
    return (np.rint(64 * x) / 64).astype(np.float32)


def projection() -> Array:
    """p (2, 5), the same for all."""
    return _rng("projection").standard_normal((2, CLASSES)).astype(np.float32)


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))
