"""Reversing affine layers: the transposed matrix, the bias dropped, no bottleneck. Eq. (6)."""

import numpy as np

from revgraph import op
from revgraph.graph import Builder, Tensor, gs
from revgraph.rules.axes import unbroadcast
from revgraph.rules.rule import KEEP_BATCH, Bottleneck, Rule, XHats, cannot_reverse, constant, window
from revgraph.rules.sizes import size_of_x


def _conv(rev: Builder, conv: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """vec x_hat = rho(F)^T vec y_hat."""
    (size,) = r
    weight = constant(conv, 1, "kernel")
    _check_channels(conv, weight.shape[1] * conv.attrs.get("group", 1))
    x, slide = conv.inputs[0], window(conv, weight.shape[2:])
    return (op.conv_transposed(rev, y_hat, conv.inputs[1], size, x, slide, conv.attrs.get("group", 1)),)


def _check_channels(node: gs.Node, channels: int) -> None:
    """ONNX's own inference accepts a kernel for other channels than x has."""
    found = node.inputs[0].shape[1]
    if isinstance(found, int) and found != channels:
        raise cannot_reverse(
            node, f"its input has {found} channels and its weights take {channels}", "check the model"
        )


def _conv_transpose(rev: Builder, node: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = the convolution of y_hat with the same kernel: a transposed matrix transposed."""
    weight = constant(node, 1, "kernel")
    _check_channels(node, weight.shape[0])
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or "output_shape" in node.attrs:
        raise cannot_reverse(node, "its pads follow from its output's size", "export it with explicit pads")
    slide = window(node, weight.shape[2:])
    extra = node.attrs.get("output_padding", ())
    if any(n >= s for n, s in zip(extra, slide.strides, strict=False)):
        why = "its output padding is no less than its strides"
        raise cannot_reverse(node, why, "choose --at before this node")
    shape = [y_hat.shape[0], *node.inputs[0].shape[1:]]
    attributes = {**slide.attributes, "group": node.attrs.get("group", 1)}
    return (rev.emit("Conv", y_hat, node.inputs[1], dtype=y_hat.dtype, shape=shape, **attributes),)


def _gemm(rev: Builder, gemm: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = alpha * y_hat W^T for y = alpha * x W + beta * b."""
    constant(gemm, 1, "weight")
    if gemm.attrs.get("transA", 0):
        raise cannot_reverse(gemm, "transA moves the batch off the first axis", KEEP_BATCH)
    alpha, transposed = gemm.attrs.get("alpha", 1.0), bool(gemm.attrs.get("transB", 0))
    return (op.gemm_transposed(rev, y_hat, gemm.inputs[1], gemm.inputs[0], alpha, transposed),)


def _factors(fwd: Builder, matmul: gs.Node) -> Bottleneck:
    """r = (a, b) where the run computes both; what the reversal of the live one does not read is dropped."""
    a, b = matmul.inputs
    both = isinstance(a, gs.Variable) and isinstance(b, gs.Variable)
    return (op.value(fwd, a), op.value(fwd, b)) if both else ()


def _matmul(rev: Builder, matmul: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = y_hat W^T for y = x W, and W^T y_hat for y = W x; Eq. (5) for y = a b of two activations."""
    a, b = matmul.inputs
    if r:
        return _product(rev, matmul, y_hat, r)
    if isinstance(b, gs.Constant) and len(a.shape) == len(b.shape) == 2:
        return (op.gemm_transposed(rev, y_hat, b, a),)
    x, weight, left = (a, b, False) if isinstance(b, gs.Constant) else (b, a, True)
    if not 2 <= weight.values.ndim <= len(x.shape) or len(x.shape) < 3:
        why = f"it multiplies {a.shape} by {b.shape}"
        raise cannot_reverse(matmul, why, "multiply (N, ...) by a matrix on its last two axes")
    # Not a transpose flag's case: a transposed copy is stored, for none may be made at run time.
    transposed = np.ascontiguousarray(weight.values.swapaxes(-1, -2))
    factors = (transposed, y_hat) if left else (y_hat, transposed)
    shape = [*y_hat.shape[:-2], *x.shape[-2:]]
    x_hat = rev.emit("MatMul", *factors, dtype=y_hat.dtype, shape=shape)
    x_hat = unbroadcast(rev, x_hat, x)
    return (None, x_hat) if left else (x_hat,)


def _product(rev: Builder, matmul: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """a_hat = y_hat b^T and b_hat = a^T y_hat."""
    a, b = r
    if len(a.shape) != len(b.shape) or len(a.shape) < 3:
        why = f"it multiplies {a.shape} by {b.shape}"
        raise cannot_reverse(matmul, why, "multiply activations of the same rank, 3 or more")
    shapes = [[*y_hat.shape[:-2], *x.shape[-2:]] for x in r]
    a_hat = rev.emit("MatMul", y_hat, _turned(rev, b), dtype=y_hat.dtype, shape=shapes[0])
    b_hat = rev.emit("MatMul", _turned(rev, a), y_hat, dtype=y_hat.dtype, shape=shapes[1])
    return (unbroadcast(rev, a_hat, a), unbroadcast(rev, b_hat, b))


def _turned(rev: Builder, x: Tensor) -> Tensor:
    """The last two axes swapped."""
    *leading, m, n = x.shape
    perm = [*range(len(leading)), len(leading) + 1, len(leading)]
    return rev.emit("Transpose", x, dtype=x.dtype, shape=[*leading, n, m], perm=perm)


def _batch_norm(rev: Builder, norm: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = y_hat * gamma / sqrt(variance + epsilon), per channel: with fixed statistics it is affine."""
    if norm.attrs.get("training_mode", 0):
        raise cannot_reverse(norm, "it is in training mode", "export the model for inference")
    gamma, variance = constant(norm, 1, "scale"), constant(norm, 4, "variance")
    _check_channels(norm, gamma.size)
    factor = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + norm.attrs.get("epsilon", 1e-5))
    spatial = (1,) * (len(norm.inputs[0].shape) - 2)
    return (op.scale(rev, y_hat, factor.reshape(-1, *spatial).astype(y_hat.dtype)),)


conv = Rule("transposed", _conv, size_of_x)
conv_transpose = Rule("convolution", _conv_transpose)
gemm = Rule("transposed", _gemm)
matmul = Rule("transposed", _matmul, _factors)
batch_norm = Rule("scale", _batch_norm)
