"""What accelerators run in one piece: no Indices, no MaxUnpool, no scattering, symmetric pads."""

from revgraph import simplify
from revgraph.graph import Builder, Tensor, gs
from revgraph.lower.phases import PHASES, place
from revgraph.lower.portable import PORTABLE, conv_transpose
from revgraph.lower.target import Target
from revgraph.window import Window


def _conv_transposed(rev: Builder, node: gs.Node) -> Tensor:
    """With pads that differ ConvTranspose would be left to the CPU."""
    y_hat, weight, size = node.inputs
    return conv_transpose(rev, y_hat, weight, size, node, symmetric=True)


def _unpool_centre(rev: Builder, node: gs.Node) -> Tensor:
    y_hat, size = node.inputs
    window = Window.of(node.attrs)
    if not isinstance(size, gs.Constant):
        return PORTABLE.layers["UnpoolCentre"](rev, node)
    return place(rev, {window.centre: y_hat}, window, node.outputs[0].shape)


def _target(name: str) -> Target:
    return Target(
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


CUDA, TENSORRT, WEB = _target("cuda"), _target("tensorrt"), _target("web")
"""One table under three names: what one of them cannot run none is given."""
