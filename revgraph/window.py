"""Sliding-window geometry: one place for pads, sizes, centres and window counts.

Everything is per spatial axis; a tuple's length is the number of spatial axes D (1, 2 or 3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Axes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """The window of a convolution or pool, with explicit pads.

    Attributes:
        kernel: Taps per axis.
        strides: Step between windows.
        dilations: Step between taps.
        begin: Padding before the first element.
        end: Padding after the last element.
        same: SAME_UPPER or SAME_LOWER where only the run knows the size, and so the padding; else empty.
    """

    kernel: Axes
    strides: Axes
    dilations: Axes
    begin: Axes
    end: Axes
    same: str = ""

    @classmethod
    def of(cls, attributes: Mapping[str, Any], kernel: Sequence[int] | None = None) -> "Window":
        """Read ONNX attributes; `kernel` is the weights' where kernel_shape may be absent."""
        kernel = tuple(attributes.get("kernel_shape", kernel))
        ones, pads = (1,) * len(kernel), tuple(attributes.get("pads", (0, 0) * len(kernel)))
        return cls(
            kernel,
            tuple(attributes.get("strides", ones)),
            tuple(attributes.get("dilations", ones)),
            pads[: len(kernel)],
            pads[len(kernel) :],
            mode if (mode := attributes.get("auto_pad", "")).startswith("SAME") else "",
        )

    @property
    def attributes(self) -> dict[str, Any]:
        """The same window as ONNX attributes."""
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "dilations": list(self.dilations),
            **({"auto_pad": self.same} if self.same else {"pads": [*self.begin, *self.end]}),
        }

    @property
    def extent(self) -> Axes:
        """Elements from a window's first tap to its last, both included."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def disjoint(self) -> bool:
        """Whether no element lies in two windows."""
        return all(s >= e for s, e in zip(self.strides, self.extent, strict=True))

    @property
    def centre(self) -> Axes:
        """Index of the centre tap: (k - 1) // 2, so the top-left one of 2 x 2, as the authors chose."""
        return tuple((k - 1) // 2 for k in self.kernel)

    def uncovered(self, outputs: Sequence[int], size: Sequence[int]) -> Axes:
        """Elements after the last window; negative where that window reaches past the input's end."""
        return tuple(
            n + b - ((o - 1) * s + e)
            for o, n, s, e, b in zip(outputs, size, self.strides, self.extent, self.begin, strict=True)
        )

    def remainder(self, size: Sequence[int]) -> Axes:
        """Elements of the padded input after the last whole window: ceil_mode adds a window for them."""
        axes = zip(size, self.strides, self.extent, self.begin, self.end, strict=True)
        return tuple((n + b + pad - e) % s for n, s, e, b, pad in axes)

    def excess(self, size: Sequence[int]) -> Axes:
        """The same where that window would start in the end padding, so that it should not be; else 0."""
        axes = zip(size, self.strides, self.extent, self.begin, self.end, self.remainder(size), strict=True)
        return tuple(rest if b + pad + n - rest - e + s >= n + b else 0 for n, s, e, b, pad, rest in axes)

    def counts(self, outputs: Sequence[int], size: Sequence[int], padding: bool) -> np.ndarray:
        """How many elements each window averages over.

        Args:
            outputs: Windows per axis.
            size: The input's spatial size.
            padding: Whether padded elements count; what ceil_mode adds beyond the pads never does.

        Returns:
            int64, shaped like `outputs`.
        """
        axes = []
        for o, n, k, s, d, b, e in zip(
            outputs, size, self.kernel, self.strides, self.dilations, self.begin, self.end, strict=True
        ):
            at = np.arange(o)[:, None] * s + np.arange(k) * d - b
            low, high = (-b, n + e) if padding else (0, n)
            axes.append(((at >= low) & (at < high)).sum(axis=1))
        grid: np.ndarray = np.prod(np.meshgrid(*axes, indexing="ij"), axis=0)
        return grid

    def one_hot(self) -> np.ndarray:
        """float32 (1, 1, *kernel): a kernel that is 1 at the centre."""
        kernel = np.zeros((1, 1, *self.kernel), np.float32)
        kernel[(0, 0, *self.centre)] = 1
        return kernel

    def same_padding(self, size: Sequence[int]) -> Axes:
        """Padding per axis that makes ceil(n / s) windows fit; negative where strides outrun the kernel."""
        axes = zip(size, self.strides, self.extent, strict=True)
        return tuple((-(-n // s) - 1) * s + e - n for n, s, e in axes)


def explicit_pads(mode: str, window: Window, size: Sequence[int]) -> list[int]:
    """The pads that auto_pad SAME_UPPER or SAME_LOWER stands for, in ONNX's order.

    Of an odd total the greater half goes to the end (SAME_UPPER) or the beginning (SAME_LOWER).
    """
    totals = [max(total, 0) for total in window.same_padding(size)]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return [*small, *large] if mode == "SAME_UPPER" else [*large, *small]
