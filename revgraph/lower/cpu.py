"""What onnxruntime's CPU does best: convolutions in blocks of channels, masks that stay in these."""

import numpy as np

from revgraph import simplify
from revgraph.graph import Builder, Tensor, gs
from revgraph.lower import blocks, forward, masks, separable
from revgraph.lower.portable import PORTABLE
from revgraph.lower.target import Target
from revgraph.window import Window


def _conv_transposed(rev: Builder, node: gs.Node) -> Tensor:
    """With stride 1 a convolution with the kernel flipped and its channels swapped, else ConvTranspose.

    ConvTranspose is a matrix product and Col2Im, never in blocks: this takes .56 to .79 of its time. Without
    it seven networks take 1.20 of the time (geometric mean).
    """
    y_hat, weight, size = node.inputs
    window, group = Window.of(node.attrs), node.attrs["group"]
    pads = _flipped_pads(window, y_hat, size)
    if pads is None or not isinstance(weight, gs.Constant):
        return PORTABLE.layers["ConvTransposed"](rev, node)
    kernel = gs.Constant(rev.fresh(f"{weight.name}/flipped"), _flip(weight.values, group))
    return rev.emit(
        "Conv",
        y_hat,
        kernel,
        dtype=y_hat.dtype,
        shape=node.outputs[0].shape,
        kernel_shape=list(window.kernel),
        dilations=list(window.dilations),
        pads=pads,
        group=group,
    )


def _flipped_pads(window: Window, y_hat: Tensor, size: Tensor) -> list[int] | None:
    """The pads with which the flipped kernel gives x_hat, where such a convolution exists."""
    if set(window.strides) != {1} or window.same:
        return None
    begin = [e - 1 - b for e, b in zip(window.extent, window.begin, strict=True)]
    end = [e - 1 - b for e, b in zip(window.extent, window.end, strict=True)]
    return [*begin, *end] if min(*begin, *end) >= 0 else None


def _flip(weight: np.ndarray, group: int) -> np.ndarray:
    """(C_out, C_in / group, *kernel) to (C_in, C_out / group, *kernel), turned about its centre."""
    outputs, inputs, *kernel = weight.shape
    grouped = weight.reshape(group, outputs // group, inputs, *kernel).swapaxes(1, 2)
    turned = np.flip(grouped, axis=tuple(range(3, grouped.ndim)))
    return np.ascontiguousarray(turned.reshape(group * inputs, outputs // group, *kernel))


def _mask(fwd: Builder, tap: gs.Node) -> Tensor:
    """In float32 where y is in blocks.

    SaliNet takes .96 of the time (SqueezeNet, ResNet-50 and Inception v1, geometric mean).
    """
    encoding = masks.FLOAT if blocks.in_blocks(tap.inputs[0]) else masks.BOOL
    return encoding.encode(fwd, tap)


def _gate(rev: Builder, gate: gs.Node) -> Tensor:
    encoding = masks.BOOL if gate.inputs[1].dtype == bool else masks.FLOAT
    return encoding.decode(rev, gate)


BITS = Target(
    "cpu",
    taps=PORTABLE.taps,
    layers={**PORTABLE.layers, "ConvTransposed": _conv_transposed},
    passes=(
        simplify.fold_scales,
        simplify.gate_before_unpool,
        simplify.rectify_before_unpool,
        simplify.slice_kernels,
    ),
    finish=(
        forward.merge_affine,
        forward.square_roots,
        blocks.concatenate_in_blocks,
        blocks.compute_in_blocks,
    ),
)
"""With masks of bool and with switches, which can be packed."""

CPU = Target(
    "cpu",
    taps={**BITS.taps, "Mask": _mask, "Penalty": masks.penalty},
    layers={**BITS.layers, "Gate": _gate},
    passes=(*BITS.passes, blocks.penalise, separable.unpool_by_axis),
    finish=BITS.finish,
)
