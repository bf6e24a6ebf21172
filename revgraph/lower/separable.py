"""Max pools of stride 1, axis by axis: switches as comparisons in blocks of channels, with no index at all.

A maximum over a window is that of its rows' maxima, and the first in row-major order lies in the first row
whose maximum is the window's, first in that row. So unpooling goes over the rows, then within them.

Along one axis n_k = [x_k < v] says that element k of a window is below the window's maximum v. What is left
of y_hat when element k is reached is P_k = n_(k-1) P_(k-1), with P_0 = y_hat, and the element gets
P_k - P_(k+1): all of y_hat where it is the first maximum, else nothing.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from revgraph.graph import Builder, Tensor, gs, replace
from revgraph.lower.blocks import blockable
from revgraph.simplify import all_of, read_tap, taps_of
from revgraph.window import Window

STEEP = 3e38
"""Times any difference above 3.3e-39 it is at least 1. Maxima below 3e-32 may differ by less, and then share
y_hat; from infinite ones nothing follows."""

MOST = 13
"""Elements along an axis, as in the widest of YOLO's pools, which takes .7 of the time so; each is a tap."""


def unpool_by_axis(fwd: Builder, rev: Builder) -> None:
    """Without it Inception v1, which has nine such pools, takes 1.12 of the time."""
    pools = taps_of(fwd, "Switches")
    for unpool in all_of(rev, "Unpool"):
        y_hat, tap, _ = unpool.inputs
        switches, window = pools.get(tap.name), Window.of(unpool.attrs)
        if switches is None or not _fits(switches, window):
            continue
        x, v = switches.inputs
        fwd.scope, rev.scope = switches.name.removesuffix("/switches"), unpool.name
        rows, columns = (Line.of(window, axis) for axis in range(2))
        h = columns.maxima(fwd, x)
        of_rows, of_columns = rows.below(fwd, h, v), columns.below(fwd, x, h)
        h_hat = rows.unpool(rev, y_hat, [read_tap(fwd, rev, n) for n in of_rows])
        replace(unpool, columns.unpool(rev, h_hat, [read_tap(fwd, rev, n) for n in of_columns]))


def _fits(switches: gs.Node, window: Window) -> bool:
    return (
        blockable(switches.inputs[0])
        and set(window.strides) == {1}
        and min(window.kernel) > 1
        and max(window.kernel) <= MOST
        and not window.same
    )


@dataclass(frozen=True, slots=True)
class Line:
    """A window of stride 1 along one axis of maps (N, C, H, W).

    Attributes:
        axis: 0 for H, 1 for W.
        elements: Where each lies, from the place of its maximum.
        growth: By how much the maxima outnumber what they are of.
    """

    axis: int
    elements: tuple[int, ...]
    growth: int

    @classmethod
    def of(cls, window: Window, axis: int) -> "Line":
        kernel, dilation, begin = window.kernel[axis], window.dilations[axis], window.begin[axis]
        growth = begin + window.end[axis] + 1 - window.extent[axis]
        return cls(axis, tuple(k * dilation - begin for k in range(kernel)), growth)

    def maxima(self, fwd: Builder, x: Tensor) -> gs.Variable:
        first, dilation = self.elements[0], self.elements[1] - self.elements[0]
        end = self.growth + dilation * (len(self.elements) - 1) + first
        return fwd.emit(
            "MaxPool",
            x,
            dtype=x.dtype,
            shape=self._shape(x, self.growth),
            kernel_shape=self._along(len(self.elements), 1),
            dilations=self._along(dilation, 1),
            pads=[*self._along(-first, 0), *self._along(end, 0)],
        )

    def below(self, fwd: Builder, x: Tensor, v: Tensor) -> list[gs.Variable]:
        """n_k for all elements but the last: float32, 1 or 0, like v."""
        like = {"dtype": v.dtype, "shape": v.shape}
        taps = list[gs.Variable]()
        for at in self.elements[:-1]:
            name = fwd.fresh(f"{fwd.scope}/below")
            if at >= 0:
                difference = fwd.emit("Add", self._moved(fwd, x, at, self.growth, factor=-1), v, **like)
                n = fwd.emit("HardSigmoid", difference, **like, name=name, alpha=STEEP, beta=0.0)
            else:  # where the window overhangs, its element is in no plane, and below any maximum
                kind = {"dtype": x.dtype, "shape": x.shape}
                difference = fwd.emit("Add", self._moved(fwd, v, -at, -self.growth, factor=-1), x, **kind)
                equal = fwd.emit("HardSigmoid", difference, **kind, alpha=STEEP, beta=1.0)
                n = self._moved(fwd, equal, at, self.growth, factor=-1, bias=1, name=name)
            taps.append(n)
        return taps

    def unpool(self, rev: Builder, y_hat: Tensor, below: list[gs.Variable]) -> gs.Variable:
        """x_hat, longer than y_hat by what y is shorter than x."""
        like = {"dtype": y_hat.dtype, "shape": y_hat.shape}
        left = [y_hat]
        for n in below:
            left.append(rev.emit("Mul", left[-1], n, **like))
        parts = [rev.emit("Sub", p, rest, **like) for p, rest in itertools.pairwise(left)]
        parts.append(left[-1])
        terms = [
            self._moved(rev, part, -at, -self.growth) for part, at in zip(parts, self.elements, strict=True)
        ]
        return rev.emit("Sum", *terms, dtype=y_hat.dtype, shape=terms[0].shape)

    def _moved(
        self,
        builder: Builder,
        x: Tensor,
        by: int,
        growth: int,
        factor: int = 1,
        bias: int = 0,
        name: str | None = None,
    ) -> Tensor:
        """bias + factor x[i + by] along an axis that grows so, with zeros for x beyond it: a convolution."""
        if (by, growth, factor, bias) == (0, 0, 1, 0):
            return x
        index, begin = max(by, 0), max(-by, 0)
        end = growth + index - begin
        weight = np.zeros((x.shape[1], 1, *self._along(index + 1 + max(-end, 0), 1)), x.dtype)
        weight.reshape(len(weight), -1)[:, index] = factor
        return builder.emit(
            "Conv",
            x,
            weight,
            *([np.full(len(weight), bias, x.dtype)] if bias else []),
            dtype=x.dtype,
            shape=self._shape(x, growth),
            name=name,
            pads=[*self._along(begin, 0), *self._along(max(end, 0), 0)],
            group=len(weight),
        )

    def _along(self, value: int, other: int) -> list[int]:
        return [other, value] if self.axis else [value, other]

    def _shape(self, x: Tensor, growth: int) -> list[int | str | None]:
        shape = list(x.shape)
        size = shape[2 + self.axis]
        shape[2 + self.axis] = size + growth if isinstance(size, int) else size if growth == 0 else None
        return shape
