"""What accelerators run in one piece: no Indices, no MaxUnpool, no scattering, symmetric pads."""

from typing import Any

import numpy as np

from revgraph import simplify
from revgraph.graph import Builder, Tensor, gs
from revgraph.lower.phases import PHASES, place
from revgraph.lower.portable import PORTABLE
from revgraph.lower.target import Target
from revgraph.window import Window


def _conv_transposed(rev: Builder, node: gs.Node) -> Tensor:
    """ConvTranspose without pads, cut afterwards, where pads would differ: CUDA leaves those to the CPU."""
    y_hat, weight, size = node.inputs
    window = Window.of(node.attrs)
    if not isinstance(size, gs.Constant):
        return PORTABLE.layers["ConvTransposed"](rev, node)
    shape, spatial = node.outputs[0].shape, np.array(size.values[0])
    rest = np.array(window.uncovered(y_hat.shape[2:], spatial.tolist()))
    begin, end = np.array(window.begin), np.maximum(-rest, 0)
    common: dict[str, Any] = {
        "kernel_shape": list(window.kernel),
        "strides": list(window.strides),
        "dilations": list(window.dilations),
        "group": node.attrs["group"],
    }
    if (begin == end).all():
        more = {"pads": [*begin.tolist()] * 2, "output_padding": np.maximum(rest, 0).tolist()}
        return rev.emit("ConvTranspose", y_hat, weight, dtype=y_hat.dtype, shape=shape, **common, **more)
    extra = np.maximum(rest, 0)
    longest = [*shape[:2], *(spatial + begin + end).tolist()]
    whole = rev.emit(
        "ConvTranspose",
        y_hat,
        weight,
        dtype=y_hat.dtype,
        shape=longest,
        output_padding=extra.tolist(),
        **common,
    )
    return rev.emit(
        "Slice", whole, begin, begin + spatial, np.arange(2, len(shape)), dtype=y_hat.dtype, shape=shape
    )


def _unpool_centre(rev: Builder, node: gs.Node) -> Tensor:
    y_hat, size = node.inputs
    window = Window.of(node.attrs)
    if not isinstance(size, gs.Constant):
        return PORTABLE.layers["UnpoolCentre"](rev, node)
    return place(rev, {window.centre: y_hat}, window, node.outputs[0].shape)


CUDA, TENSORRT, WEB = (
    Target(
        name,
        taps={**PORTABLE.taps, "Switches": PHASES.encode},
        layers={
            **PORTABLE.layers,
            "ConvTransposed": _conv_transposed,
            "Unpool": PHASES.decode,
            "UnpoolCentre": _unpool_centre,
        },
        passes=(simplify.gate_before_unpool,),
    )
    for name in ("cuda", "tensorrt", "web")
)
