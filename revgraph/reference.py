"""The paper's equations in NumPy float64, forward and reversed: what the compiled graphs are held against.

It runs the user's own model as it stands, by im2col and matmul, and imports nothing of the compiler. Where
ONNX leaves room, `forward` does as onnxruntime's CPU does. Activations are (N, C, *spatial).
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from revgraph.errors import RevgraphError

Array: TypeAlias = npt.NDArray[Any]
Forward: TypeAlias = Callable[..., Any]
Reversed: TypeAlias = Callable[["Layer", Array, int], Any]
FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
}


@dataclass(frozen=True)
class Layer:
    """One node and what it reads: phi_i and its x of Eq. (2).

    Attributes:
        node: The node of the user's model.
        opset: The model's version of the standard operators.
        inputs: The values of the node's inputs; None for an optional one that is left out.
    """

    node: onnx.NodeProto
    opset: int
    inputs: tuple[Any, ...]

    @property
    def x(self) -> Array:
        return np.asarray(self.inputs[0])

    def get(self, name: str, default: Any = None) -> Any:
        values = (onnx.helper.get_attribute_value(a) for a in self.node.attribute if a.name == name)
        value = next(values, default)
        return value.decode() if isinstance(value, bytes) else value

    def get_or_read(self, name: str, position: int) -> Any:
        """Ints that a later opset moved from an attribute to an input; None where they are left out."""
        read = self.inputs[position] if position < len(self.inputs) else None
        return self.get(name) if read is None else read.tolist()

    def refusal(self, why: str, remedy: str, verb: str = "run") -> RevgraphError:
        name = self.node.name or f"{self.node.op_type} of {self.node.output[0]}"
        return RevgraphError(f"cannot {verb} node {name!r}", why, remedy)


# ----- Sliding windows -----


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


def _window(layer: Layer, kernel: Iterable[int]) -> Window:
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


def _picture(window: Window) -> tuple[Any, ...]:
    return (..., *(axis.picture for axis in window))


def _taps(window: Window) -> list[tuple[Any, ...]]:
    """The K kernel offsets in row-major order."""
    return [(..., *tap) for tap in itertools.product(*(axis.taps() for axis in window))]


def _im2col(x: Array, window: Window, fill: float = 0.0) -> Array:
    """(N, C, *spatial) to (N, C, K, *out): what each kernel offset sees at each step."""
    padded = np.full((*x.shape[:2], *(axis.padded for axis in window)), fill)
    padded[_picture(window)] = x
    return np.stack([padded[tap] for tap in _taps(window)], axis=2)


def _col2im(columns: Array, window: Window) -> Array:
    """The transpose of `_im2col`, (N, C, K, *out) to (N, C, *spatial): overlaps add, padding is dropped."""
    padded = np.zeros((*columns.shape[:2], *(axis.padded for axis in window)))
    for k, tap in enumerate(_taps(window)):
        padded[tap] += columns[:, :, k]
    return np.asarray(padded[_picture(window)])


# ----- Affine layers: vec y = A vec x + b, reversed vec x_hat = A^T vec y_hat (Eq. 6) -----


def _matrices(layer: Layer) -> Array:
    """The filters F, (M, C / G, *kernel), as one matrix for each of the G groups: (G, M / G, C / G * K)."""
    group, weight = layer.get("group", 1), layer.inputs[1]
    return np.asarray(weight.reshape(group, len(weight) // group, -1))


def _conv(layer: Layer, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """vec y = rho(F) vec x + b."""
    window, f = _window(layer, weight.shape[2:]), _matrices(layer)
    columns = _im2col(x, window).reshape(len(x), len(f), f.shape[2], -1)
    y = (f @ columns).reshape(len(x), len(weight), *(axis.out for axis in window))
    return y if bias is None else y + _per_channel(bias, x)


def _conv_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """vec x_hat = rho(F)^T vec y_hat (Eq. 6)."""
    window, f = _window(layer, layer.inputs[1].shape[2:]), _matrices(layer)
    columns = f.swapaxes(1, 2) @ y_hat.reshape(len(y_hat), len(f), f.shape[1], -1)
    return _col2im(columns.reshape(*layer.x.shape[:2], -1, *y_hat.shape[2:]), window)


def _gemm(layer: Layer, a: Array, b: Array, c: Any = None) -> Array:
    """Y = alpha A B + beta C, A and B transposed as their flags say."""
    c = 0.0 if c is None else c
    a, b = a.T if layer.get("transA", 0) else a, b.T if layer.get("transB", 0) else b
    return np.asarray(layer.get("alpha", 1.0) * (a @ b) + layer.get("beta", 1.0) * c)


def _gemm_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """A_hat = alpha Y_hat B^T (Eq. 6)."""
    b = layer.inputs[1]
    a_hat = layer.get("alpha", 1.0) * (y_hat @ (b if layer.get("transB", 0) else b.T))
    return np.asarray(a_hat.T if layer.get("transA", 0) else a_hat)


def _matmul_reversed(layer: Layer, y_hat: Array, operand: int) -> Array:
    """A_hat = Y_hat B^T, B_hat = A^T Y_hat (Eq. 6), summed over the pictures that share a matrix."""
    a, b = layer.inputs
    if min(a.ndim, b.ndim) < 2:
        raise layer.refusal(
            "one of its operands is a vector", "reshape it to a matrix in the model", "reverse"
        )
    x_hat = a.swapaxes(-1, -2) @ y_hat if operand else y_hat @ b.swapaxes(-1, -2)
    return _unbroadcast(x_hat, layer.inputs[operand].shape)


def _unbroadcast(y_hat: Array, shape: tuple[int, ...]) -> Array:
    """The transpose of broadcasting from `shape`: the sum over the axes that it stretched."""
    y_hat = y_hat.sum(axis=tuple(range(y_hat.ndim - len(shape))))
    return np.asarray(y_hat.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True))


def _elementwise(slope: Callable[[Layer, int], Any]) -> Reversed:
    """x_hat = y_hat * (dy / dx), the slope given by which operand x is (Eq. 5)."""
    return lambda layer, y_hat, operand: _unbroadcast(
        y_hat * slope(layer, operand), layer.inputs[operand].shape
    )


def _div(_: Layer, a: Array, b: Array) -> Array:
    return np.asarray(a / b if a.dtype.kind == "f" else np.trunc(a / b).astype(a.dtype))


def _concat_reversed(layer: Layer, y_hat: Array, operand: int) -> Array:
    """x_hat is the part of y_hat that x is of y."""
    axis = layer.get("axis")
    ends = np.cumsum([x.shape[axis] for x in layer.inputs])
    return np.split(y_hat, ends[:-1], axis)[operand]


def _per_channel(values: Array, x: Array) -> Array:
    return values.reshape(*values.shape, *[1] * (x.ndim - 1 - values.ndim))


def _batch_norm(layer: Layer, x: Array, scale: Array, bias: Array, mean: Array, var: Array) -> Array:
    """y = (x - mean) * scale / sqrt(var + epsilon) + bias."""
    if layer.get("training_mode", 0):
        raise layer.refusal("it normalises by the batch (training_mode=1)", "export the model for inference")
    factor = scale / np.sqrt(var + layer.get("epsilon", 1e-5))
    return (x - _per_channel(mean, x)) * _per_channel(factor, x) + _per_channel(bias, x)


def _batch_norm_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat = y_hat * scale / sqrt(var + epsilon) (Eq. 6)."""
    x, scale, _bias, _mean, var = layer.inputs
    return y_hat * _per_channel(scale / np.sqrt(var + layer.get("epsilon", 1e-5)), x)


# ----- Pooling -----


def _pooled(layer: Layer) -> Window:
    return _window(layer, layer.get("kernel_shape"))


def _max_pool(layer: Layer, x: Array) -> Array:
    """y_u = max of x_v over v in N(u) (Eq. 8)."""
    return np.asarray(_im2col(x, _pooled(layer), fill=-np.inf).max(axis=2))


def _unpool_switches(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat_v = sum of y_hat_u over s(u) = v (Eq. 9); of equal maxima s is the first in row-major order."""
    columns = _im2col(layer.x, _pooled(layer), fill=-np.inf)
    hats = np.zeros_like(columns)
    np.put_along_axis(hats, columns.argmax(axis=2, keepdims=True), y_hat[:, :, None], axis=2)
    return _col2im(hats, _pooled(layer))


def _unpool_centre(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat_v = sum of y_hat_u over the windows centred on v (Sect. 2.2), of two centres the first."""
    kernel = layer.get("kernel_shape")
    hats = np.zeros((*y_hat.shape[:2], math.prod(kernel), *y_hat.shape[2:]))
    hats[:, :, np.ravel_multi_index([(k - 1) // 2 for k in kernel], kernel)] = y_hat
    return _col2im(hats, _pooled(layer))


def _counted(layer: Layer) -> Array:
    """|N(u)|, (1, 1, *out): beyond the pads, where rounding up may reach, no pixel counts."""
    window = _pooled(layer)
    if layer.get("count_include_pad", 0):
        window = [replace(a, size=a.before + a.size + a.after, before=0, after=0) for a in window]
    return np.asarray(_im2col(np.ones((1, 1, *(axis.size for axis in window))), window).sum(axis=2))


def _average_pool(layer: Layer, x: Array) -> Array:
    """y_u = mean of x_v over v in N(u)."""
    return np.asarray(_im2col(x, _pooled(layer)).sum(axis=2) / _counted(layer))


def _average_pool_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat_v = sum of y_hat_u / |N(u)| over the u with v in N(u) (Eq. 6)."""
    share = (y_hat / _counted(layer))[:, :, None]
    return _col2im(share.repeat(math.prod(layer.get("kernel_shape")), axis=2), _pooled(layer))


def _global_average_pool_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat_v = y_hat / |picture| (Eq. 6)."""
    return np.broadcast_to(y_hat / math.prod(layer.x.shape[2:]), layer.x.shape)


# ----- Activations and normalisation -----


def _as_is(_layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat = y_hat."""
    return y_hat


def _rectify(_layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat = max{y_hat, 0} (Eq. 10, DeConvNet)."""
    return np.maximum(y_hat, 0.0)


def _mask(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat = y_hat * r, r = [x > 0] (Eq. 7)."""
    return np.asarray(y_hat * (layer.x > 0))


def _mask_rectify(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat = max{y_hat, 0} * [x > 0] (Eq. 10, DeSaliNet)."""
    return np.asarray(np.maximum(y_hat, 0.0) * (layer.x > 0))


def _neighbours(x: Array, before: int, after: int) -> Array:
    """The sum over channels c - before to c + after, shaped like x."""
    padded = np.pad(x, [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
    return reduce(np.add, (padded[:, i : i + x.shape[1]] for i in range(before + after + 1)))


def _lrn_base(layer: Layer) -> Array:
    """D = bias + alpha / n * (sum of x^2 over the n channels around), shaped like x."""
    n = layer.get("size")
    squares = _neighbours(layer.x**2, (n - 1) // 2, n // 2)
    return np.asarray(layer.get("bias", 1.0) + layer.get("alpha", 1e-4) / n * squares)


def _lrn(layer: Layer, x: Array) -> Array:
    """y = x / D^beta."""
    return np.asarray(x / _lrn_base(layer) ** layer.get("beta", 0.75))


def _lrn_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat = y_hat / D^beta - 2 alpha beta / n * x * (sum of y_hat x / D^(beta + 1) around) (Eq. 5)."""
    d, n, beta = _lrn_base(layer), layer.get("size"), layer.get("beta", 0.75)
    through = _neighbours(y_hat * layer.x / d ** (beta + 1), n // 2, (n - 1) // 2)
    return np.asarray(y_hat / d**beta - 2 * layer.get("alpha", 1e-4) * beta / n * layer.x * through)


def _log_softmax(layer: Layer, x: Array) -> Array:
    """y = x - log sum exp x over `axis`, before opset 13 over every axis from there on."""
    every = tuple(range(x.ndim))
    axes = every[layer.get("axis", 1) :] if layer.opset < 13 else every[layer.get("axis", -1)]
    x = x - x.max(axis=axes, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=axes, keepdims=True)))


# ----- Wiring: every y_u is a copy of some x_v -----


def _reshape(_: Layer, x: Array, shape: Array) -> Array:
    """A 0 keeps its axis, a -1 takes what remains."""
    return x.reshape([int(n) or x.shape[i] for i, n in enumerate(shape)])


def _squeeze(layer: Layer, x: Array, *_: Array) -> Array:
    axes = layer.get_or_read("axes", 1)
    return x.squeeze(None if axes is None else tuple(axes))


def _slice(layer: Layer, x: Array, *_: Array) -> Array:
    names = ("starts", "ends", "axes", "steps")
    starts, ends, axes, steps = (layer.get_or_read(name, i) for i, name in enumerate(names, 1))
    index = [slice(None)] * x.ndim
    for axis, *bounds in zip(
        axes or range(len(starts)), starts, ends, steps or [1] * len(starts), strict=True
    ):
        index[axis] = slice(*bounds)
    return x[tuple(index)]


def _wired_back(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat_v = sum of y_hat_u over the copies u of v (Eq. 5), found by sending positions forward."""
    x = layer.x
    copied = _operator(layer).forward(layer, np.arange(x.size).reshape(x.shape), *layer.inputs[1:])
    return np.bincount(copied.ravel(), weights=y_hat.ravel(), minlength=x.size).reshape(x.shape)


# ----- Constants, shapes and types -----


def _floats(values: Any) -> Array:
    """An array, in float64 if it holds floating numbers."""
    array = np.asarray(values)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _array(tensor: onnx.TensorProto) -> Array:
    array = onnx.numpy_helper.to_array(tensor)
    return array.astype(np.float64) if tensor.data_type in FLOATS else array


def _constant(layer: Layer) -> Array:
    value = onnx.helper.get_attribute_value(layer.node.attribute[0])
    return _array(value) if isinstance(value, onnx.TensorProto) else _floats(value)


def _constant_of_shape(layer: Layer, shape: Array) -> Array:
    value = layer.get("value")
    return np.full(shape, 0.0 if value is None else _array(value))


def _shape(layer: Layer, x: Array) -> Array:
    return np.array(x.shape[layer.get("start", 0) : layer.get("end")], np.int64)


def _cast(layer: Layer, x: Array) -> Array:
    to = layer.get("to")
    return x.astype(np.float64 if to in FLOATS else onnx.helper.tensor_dtype_to_np_dtype(to))


def _cast_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat = y_hat, between floating types; from integers too, which a picture may be."""
    if layer.get("to") not in FLOATS:
        raise layer.refusal("it rounds to integers", "choose a layer before it", "reverse")
    return y_hat


# ----- The table, and the variants of Fig. 3 -----


@dataclass(frozen=True)
class Operator:
    """How one operator runs, and how it is reversed.

    Attributes:
        forward: (layer, *inputs) to y (Eq. 2).
        reversed: (layer, y_hat, which input) to that input's x_hat; None if it has none, or the variant's.
        data: The inputs that have an x_hat; None if all do.
    """

    forward: Forward
    reversed: Reversed | None = None
    data: tuple[int, ...] | None = (0,)


OPERATORS: Mapping[str, Operator] = {
    "Add": Operator(lambda _, *x: reduce(np.add, x), _elementwise(lambda _, operand: 1.0), None),
    "AveragePool": Operator(_average_pool, _average_pool_reversed),
    "BatchNormalization": Operator(_batch_norm, _batch_norm_reversed),
    "Cast": Operator(_cast, _cast_reversed),
    "Concat": Operator(lambda layer, *x: np.concatenate(x, layer.get("axis")), _concat_reversed, None),
    "Constant": Operator(_constant),
    "ConstantOfShape": Operator(_constant_of_shape),
    "Conv": Operator(_conv, _conv_reversed),
    "Div": Operator(_div, _elementwise(lambda layer, _: 1 / layer.inputs[1])),
    "Dropout": Operator(lambda _, x, *ratio: x, _as_is),
    "Flatten": Operator(
        lambda layer, x: x.reshape(math.prod(x.shape[: layer.get("axis", 1)]), -1), _wired_back
    ),
    "Gather": Operator(lambda layer, x, indices: np.take(x, indices, layer.get("axis", 0)), _wired_back),
    "Gemm": Operator(_gemm, _gemm_reversed),
    "GlobalAveragePool": Operator(
        lambda _, x: x.mean(axis=tuple(range(2, x.ndim)), keepdims=True), _global_average_pool_reversed
    ),
    "Identity": Operator(lambda _, x: x, _as_is),
    "LRN": Operator(_lrn),
    "LogSoftmax": Operator(_log_softmax),
    "MatMul": Operator(lambda _, a, b: a @ b, _matmul_reversed, None),
    "MaxPool": Operator(_max_pool),
    "Mul": Operator(
        lambda _, a, b: a * b, _elementwise(lambda layer, operand: layer.inputs[1 - operand]), None
    ),
    "Relu": Operator(lambda _, x: np.maximum(x, 0)),
    "Reshape": Operator(_reshape, _wired_back),
    "Shape": Operator(_shape),
    "Slice": Operator(_slice, _wired_back),
    "Softmax": Operator(lambda layer, x: np.exp(_log_softmax(layer, x))),
    "Squeeze": Operator(_squeeze, _wired_back),
    "Sub": Operator(lambda _, a, b: a - b, _elementwise(lambda _, operand: (1.0, -1.0)[operand]), None),
    "Sum": Operator(lambda _, *x: reduce(np.add, x), _elementwise(lambda _, operand: 1.0), None),
    "Transpose": Operator(lambda layer, x: x.transpose(layer.get("perm")), _wired_back),
    "Unsqueeze": Operator(
        lambda layer, x, *_: np.expand_dims(x, tuple(layer.get_or_read("axes", 1))), _wired_back
    ),
}

RELU: Mapping[str, Reversed] = {
    "identity": _as_is,
    "deconvnet": _rectify,
    "salinet": _mask,
    "desalinet": _mask_rectify,
}
MAX_POOL: Mapping[str, Reversed] = {"": _unpool_switches, "-centre": _unpool_centre}
LRN: Mapping[str, Reversed] = {"identity": _as_is, "bp": _lrn_reversed}
VARIANTS = {
    relu + pool: {"Relu": RELU[relu], "MaxPool": MAX_POOL[pool]} for pool in MAX_POOL for relu in RELU
}


def _reversals(variant: str, lrn: str | None) -> dict[str, Reversed]:
    """The reversed layer of each operator that has one."""
    lrn = lrn or ("bp" if variant == "salinet" else "identity")
    for kind, name, known in (("variant", variant, VARIANTS), ("reversal of LRN", lrn, LRN)):
        if name not in known:
            raise RevgraphError(
                f"no {kind} {name!r}", "there is none of that name", f"choose from {', '.join(known)}"
            )
    affine = {op_type: operator.reversed for op_type, operator in OPERATORS.items() if operator.reversed}
    return {**affine, **VARIANTS[variant], "LRN": LRN[lrn]}


# ----- The walk -----


def forward(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run the user's model.

    Args:
        model: Any opset from 7 on; the shapes it declares are not trusted.
        feeds: A value for each input that has no initializer.

    Returns:
        Every tensor by name: feeds, initializers, constants, activations. Floating ones are float64.
    """
    tensors = {tensor.name: _array(tensor) for tensor in model.graph.initializer}
    tensors |= {name: _floats(value) for name, value in feeds.items()}
    for node in model.graph.node:
        layer = _layer(model, node, tensors)
        tensors[node.output[0]] = np.asarray(_operator(layer).forward(layer, *layer.inputs))
    return tensors


def reverse(
    model: onnx.ModelProto,
    tensors: Mapping[str, Array],
    *,
    variant: str,
    at: str,
    to: str,
    p: Array,
    lrn: str | None = None,
) -> dict[str, Array]:
    """Run the reversed network from p at the tensor `at` back to the input `to`.

    Args:
        model: What `tensors` came from.
        tensors: The result of `forward` for N images; every bottleneck r is read off it.
        variant: One of the eight of Fig. 3.
        at: The tensor y that is projected onto p.
        to: The input x.
        p: (P, *y.shape[1:]); P is N, or anything if N is 1.
        lrn: "identity" or "bp"; by default "bp" for the variant "salinet" and "identity" for the others.

    Returns:
        x_hat of every tensor on the way, by name, each with P rows.
    """
    rules, y, p = _reversals(variant, lrn), _tensor(tensors, at), np.asarray(p, np.float64)
    if at not in _dependent(model, to):
        raise RevgraphError(
            f"cannot reverse from {at!r}", f"it does not depend on {to!r}", "choose one that does"
        )
    if p.shape[1:] != y.shape[1:] or len(y) not in (1, len(p)):
        why = f"p is {p.shape} and {at!r} is {y.shape}"
        raise RevgraphError(
            f"cannot reverse from {at!r}", why, "feed a row of p for each image, or one image"
        )
    if len(p) == len(y):
        return _walk(model, tensors, rules, at, to, p)
    rows = [_walk(model, tensors, rules, at, to, row[None]) for row in p]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _walk(
    model: onnx.ModelProto,
    tensors: Mapping[str, Array],
    rules: Mapping[str, Reversed],
    at: str,
    to: str,
    p: Array,
) -> dict[str, Array]:
    """From p at `at` to `to`, last node first; where a tensor fans out, what comes back adds."""
    x_hats, dependent = {at: p}, _dependent(model, to)
    for node in reversed(model.graph.node):
        if node.output[0] in x_hats:
            layer, y_hat = _layer(model, node, tensors), x_hats[node.output[0]]
            for operand, name in enumerate(node.input):
                if name in dependent:
                    x_hats[name] = x_hats.get(name, 0.0) + _rule(layer, operand, rules)(layer, y_hat, operand)
    return x_hats


def _dependent(model: onnx.ModelProto, to: str) -> set[str]:
    """The tensors that `to` flows into; what is computed from shapes alone is constant."""
    names = {to}
    for node in model.graph.node:
        if node.op_type != "Shape" and names.intersection(node.input):
            names.update(node.output)
    return names


def _layer(model: onnx.ModelProto, node: onnx.NodeProto, tensors: Mapping[str, Array]) -> Layer:
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return Layer(node, opset, tuple(_tensor(tensors, name) if name else None for name in node.input))


def _tensor(tensors: Mapping[str, Array], name: str) -> Array:
    if name not in tensors:
        why = "it is no feed, no initializer and no first output of a node"
        raise RevgraphError(f"no value for {name!r}", why, "feed it, or choose another tensor")
    return tensors[name]


def _operator(layer: Layer) -> Operator:
    op_type = layer.node.op_type
    if layer.node.domain not in ("", "ai.onnx") or op_type not in OPERATORS:
        known = f"rules exist for {', '.join(OPERATORS)}"
        kind = f"{layer.node.domain}.{op_type}".removeprefix(".")
        raise layer.refusal(f"the reference has no rule for {kind}", known)
    return OPERATORS[op_type]


def _rule(layer: Layer, operand: int, rules: Mapping[str, Reversed]) -> Reversed:
    op_type, data = layer.node.op_type, _operator(layer).data
    if op_type not in rules:
        known = f"reversed layers exist for {', '.join(sorted(rules))}"
        raise layer.refusal(f"the reference has no reversed layer for {op_type}", known, "reverse")
    if data is not None and operand not in data:
        why = f"input {operand} of this {op_type}, {layer.node.input[operand]!r}, is not constant"
        raise layer.refusal(why, f"only input {data[0]} may come from the picture", "reverse")
    return rules[op_type]
