"""Standard ONNX that any backend runs, weights stored as the forward file has them."""

import numpy as np

from revgraph import op
from revgraph.graph import Builder, Tensor, gs
from revgraph.lower import masks, switches
from revgraph.lower.target import Target
from revgraph.window import Window


def _conv_transposed(rev: Builder, node: gs.Node) -> Tensor:
    y_hat, weight, size = node.inputs
    return conv_transpose(rev, y_hat, weight, size, node)


def _unpool_centre(rev: Builder, node: gs.Node) -> Tensor:
    """Unpooling to the centre is the transposed convolution with a kernel that is 1 there."""
    y_hat, size = node.inputs
    channels = y_hat.shape[1]
    one_hot = np.broadcast_to(Window.of(node.attrs).one_hot(), (channels, 1, *node.attrs["kernel_shape"]))
    node.attrs["group"] = channels
    return conv_transpose(rev, y_hat, np.ascontiguousarray(one_hot, y_hat.dtype), size, node)


def conv_transpose(
    rev: Builder,
    y_hat: Tensor,
    weight: Tensor | np.ndarray,
    size: Tensor,
    node: gs.Node,
    symmetric: bool = False,
) -> Tensor:
    """ConvTranspose with pads, or where only the run knows these without any, and cut afterwards.

    Args:
        rev: The reversed graph.
        y_hat: (P, C_out, *spatial).
        weight: The forward convolution's.
        size: x's.
        node: The layer of the middle form.
        symmetric: Whether pads that differ are cut too.
    """
    window, shape = Window.of(node.attrs), node.outputs[0].shape
    common = {
        "kernel_shape": list(window.kernel),
        "strides": list(window.strides),
        "dilations": list(window.dilations),
        "group": node.attrs["group"],
    }
    if isinstance(size, gs.Constant):
        rest = window.uncovered(y_hat.shape[2:], size.values[0].tolist())
        end = [max(-n, 0) for n in rest]
        if not symmetric or end == list(window.begin):
            return rev.emit(
                "ConvTranspose",
                y_hat,
                weight,
                dtype=y_hat.dtype,
                shape=shape,
                pads=[*window.begin, *end],
                output_padding=[max(n, 0) for n in rest],
                **common,
            )
    # Up to stride - 1 elements after the last window belong to no window: make them all, keep what x has.
    longest = rev.emit(
        "ConvTranspose",
        y_hat,
        weight,
        dtype=y_hat.dtype,
        shape=[*shape[:2], *[None] * len(window.kernel)],
        output_padding=[s - 1 for s in window.strides],
        **common,
    )
    row, axes = op.row(rev, size), np.arange(2, len(shape))
    begin = same_begin(rev, row, window) if window.same else np.array(window.begin)
    end = rev.emit("Add", row, begin, dtype=np.int64, shape=[len(window.kernel)])
    return rev.emit("Slice", longest, begin, end, axes, dtype=y_hat.dtype, shape=shape)


def same_begin(rev: Builder, row: Tensor, window: Window) -> Tensor:
    """The padding before the first element that auto_pad SAME stands for: int64 (D,)."""

    def emit(operator: str, a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> Tensor:
        return rev.emit(operator, a, b, dtype=np.int64, shape=[len(window.kernel)])

    strides, extent = np.array(window.strides), np.array(window.extent)
    windows = emit("Div", emit("Add", row, strides - 1), strides)
    reach = emit("Add", emit("Mul", emit("Sub", windows, np.array(1)), strides), extent)
    total = emit("Max", emit("Sub", reach, row), np.array(0))
    # Of an odd total the smaller half comes first, or with SAME_LOWER the greater.
    return emit("Div", total if window.same == "SAME_UPPER" else emit("Add", total, np.array(1)), np.array(2))


def _gemm_transposed(rev: Builder, node: gs.Node) -> Tensor:
    """The same initializer with the other transpose flag: nothing is transposed at run time."""
    y_hat, weight = node.inputs
    flags = {"alpha": node.attrs["alpha"], "transB": 1 - node.attrs["transB"]}
    return rev.emit("Gemm", y_hat, weight, dtype=y_hat.dtype, shape=node.outputs[0].shape, **flags)


def _rectify(rev: Builder, node: gs.Node) -> Tensor:
    (y_hat,) = node.inputs
    return rev.emit("Relu", y_hat, dtype=y_hat.dtype, shape=y_hat.shape)


def _scale(rev: Builder, node: gs.Node) -> Tensor:
    y_hat, factor = node.inputs
    return rev.emit("Mul", y_hat, factor, dtype=y_hat.dtype, shape=y_hat.shape)


def _value(fwd: Builder, tap: gs.Node) -> Tensor:
    """A sum of one term: onnxruntime eliminates an Identity, and fusing a Pad behind x then loses x."""
    (x,) = tap.inputs
    return fwd.emit("Sum", x, dtype=x.dtype, shape=x.shape)


def _size(fwd: Builder, tap: gs.Node) -> Tensor:
    """One row per image, so that the taps of a batch are those of its images."""
    (x,) = tap.inputs
    axes = tap.outputs[0].shape[1]
    spatial = fwd.emit("Shape", x, dtype=np.int64, shape=[axes], start=2)
    batch = fwd.emit("Shape", x, dtype=np.int64, shape=[1], start=0, end=1)
    shape = fwd.emit("Concat", batch, np.array([axes]), dtype=np.int64, shape=[2], axis=0)
    return fwd.emit("Expand", spatial, shape, dtype=np.int64, shape=[x.shape[0], axes])


PORTABLE = Target(
    "portable",
    taps={
        "Mask": masks.BOOL.encode,
        "Size": _size,
        "Slope": _value,
        "Switches": switches.PLANE.encode,
        "Value": _value,
    },
    layers={
        "ConvTransposed": _conv_transposed,
        "Gate": masks.BOOL.decode,
        "GemmTransposed": _gemm_transposed,
        "Rectify": _rectify,
        "Scale": _scale,
        "Unpool": switches.PLANE.decode,
        "UnpoolCentre": _unpool_centre,
    },
)
