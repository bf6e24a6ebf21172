"""Sliding windows: which pixels each step sees, as columns and back."""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from revgraph.reference.layer import Array, Layer


@dataclass(frozen=True)
class Axis:
    """A sliding window along one spatial axis of `size` pixels: `out` steps over the padded picture."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    out: int

    @property
    def padded(self) -> int:
        """The padded picture, and what the last window of a rounded-up pooling sees beyond it."""
        seen = (self.out - 1) * self.stride + self.dilation * (self.kernel - 1) + 1
        return max(self.before + self.size + self.after, seen)

    @property
    def picture(self) -> slice:
        return slice(self.before, self.before + self.size)

    def taps(self) -> Iterator[slice]:
        """For each kernel offset, the `out` pixels of the padded picture that it sees."""
        for start in range(0, self.dilation * self.kernel, self.dilation):
            yield slice(start, start + (self.out - 1) * self.stride + 1, self.stride)


Window: TypeAlias = list[Axis]


def window(layer: Layer, kernel: Iterable[int]) -> Window:
    """The window of a convolution or pooling over x."""
    kernel, spatial = list(kernel), layer.x.shape[2:]
    strides, dilations = (layer.get(name, [1] * len(kernel)) for name in ("strides", "dilations"))
    same = layer.get("auto_pad", "").startswith("SAME")
    pads = _same_pads(layer, kernel, strides, dilations) if same else _explicit_pads(layer, len(kernel))
    axes = list(zip(spatial, kernel, strides, dilations, pads, strict=True))
    if any(n + sum(pad) <= d * (k - 1) for n, k, _, d, pad in axes):
        raise layer.refusal(f"its window is wider than the padded picture {spatial}", "feed a larger picture")
    ceil = bool(layer.get("ceil_mode", 0))
    return [Axis(n, k, s, d, *pad, _steps(n, k, s, d, pad, ceil)) for n, k, s, d, pad in axes]


def _steps(size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int], ceil: bool) -> int:
    room = size + sum(pads) - dilation * (kernel - 1) - 1
    steps = (-(-room // stride) if ceil else room // stride) + 1
    # The last window of a rounded-up pooling must not start in the padding behind the picture.
    return steps - (ceil and (steps - 1) * stride >= size + pads[0])


def _explicit_pads(layer: Layer, rank: int) -> list[tuple[int, int]]:
    pads = [0] * 2 * rank if layer.get("auto_pad") == "VALID" else layer.get("pads", [0] * 2 * rank)
    return list(zip(pads[:rank], pads[rank:], strict=True))


def _same_pads(layer: Layer, *geometry: list[int]) -> list[tuple[int, int]]:
    """What ceil(size / stride) steps need, the odd pixel behind for SAME_UPPER and before for SAME_LOWER."""
    axes = list(zip(layer.x.shape[2:], *geometry, strict=True))
    needed = [(math.ceil(n / s) - 1) * s + k - n for n, k, s, _ in axes]
    if min(needed) < -1 or any(d > 1 for *_, d in axes):
        why = "with auto_pad SAME onnxruntime ignores dilations, and crops where strides outrun the kernel"
        raise layer.refusal(why, "write its pads out")
    pads = [(max(n, 0) // 2, (max(n, 0) + 1) // 2) for n in needed]
    return pads if layer.get("auto_pad") == "SAME_UPPER" else [(after, before) for before, after in pads]


def transposed_window(layer: Layer, kernel: Iterable[int]) -> Window:
    """The window of a transposed convolution, which slides over y: each of its steps is a pixel of x."""
    kernel, spatial = list(kernel), layer.x.shape[2:]
    ones, zeros = [1] * len(kernel), [0] * len(kernel)
    strides, dilations = layer.get("strides", ones), layer.get("dilations", ones)
    more = layer.get("output_padding", zeros)
    # What y would be without pads; the pads crop it.
    reach = [
        (n - 1) * s + d * (k - 1) + 1 + extra
        for n, k, s, d, extra in zip(spatial, kernel, strides, dilations, more, strict=True)
    ]
    pads = _cropped(layer, reach, strides)
    sizes = layer.get("output_shape", [whole - sum(pad) for whole, pad in zip(reach, pads, strict=True)])
    axes = zip(sizes, kernel, strides, dilations, pads, spatial, strict=True)
    return [Axis(size, k, s, d, before, after, n) for size, k, s, d, (before, after), n in axes]


def _cropped(layer: Layer, reach: list[int], strides: list[int]) -> list[tuple[int, int]]:
    """The pads that crop y from `reach`, given, or implied by the size that y shall have at most."""
    same = layer.get("auto_pad", "").startswith("SAME")
    implied = [n * s for n, s in zip(layer.x.shape[2:], strides, strict=True)] if same else None
    sizes = layer.get("output_shape", implied)
    if sizes is None:
        return _explicit_pads(layer, len(reach))
    total = [max(whole - size, 0) for whole, size in zip(reach, sizes, strict=True)]
    pads = [(n // 2, n - n // 2) for n in total]
    return pads if layer.get("auto_pad") == "SAME_UPPER" else [(after, before) for before, after in pads]


def _picture(window: Window) -> tuple[Any, ...]:
    return (..., *(axis.picture for axis in window))


def _taps(window: Window) -> list[tuple[Any, ...]]:
    """The K kernel offsets in row-major order."""
    return [(..., *tap) for tap in itertools.product(*(axis.taps() for axis in window))]


def im2col(x: Array, window: Window, fill: float = 0.0) -> Array:
    """(N, C, *spatial) to (N, C, K, *out): what each kernel offset sees at each step."""
    padded = np.full((*x.shape[:2], *(axis.padded for axis in window)), fill)
    padded[_picture(window)] = x
    return np.stack([padded[tap] for tap in _taps(window)], axis=2)


def col2im(columns: Array, window: Window) -> Array:
    """The transpose of `im2col`, (N, C, K, *out) to (N, C, *spatial): overlaps add, padding is dropped."""
    padded = np.zeros((*columns.shape[:2], *(axis.padded for axis in window)))
    for k, tap in enumerate(_taps(window)):
        padded[tap] += columns[:, :, k]
    return np.asarray(padded[_picture(window)])
