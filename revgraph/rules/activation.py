"""Reversing other activations: r is the slope at x, and the rest is as for ReLU (Eqs. 5, 7 and 10).

Rectifier-like ones take the variant's choice of the four; gates and squashers are BP-reversed in all.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from revgraph import op
from revgraph.graph import Builder, Tensor, gs
from revgraph.rules import relu
from revgraph.rules.rule import Bottleneck, Rule, XHats, compose, constant

Slope = Callable[["Forward"], Tensor]


class Forward:
    """Writes the derivative of one activation into the forward graph.

    Attributes:
        node: The activation.
        x: Its input.
        y: Its output.
    """

    def __init__(self, fwd: Builder, node: gs.Node) -> None:
        self._fwd, self.node, self.x, self.y = fwd, node, node.inputs[0], node.outputs[0]

    def __call__(self, operator: str, *inputs: Tensor | np.ndarray | float) -> gs.Variable:
        """One node whose output is shaped like x; bool for comparisons."""
        tensors = [np.array(t, self.x.dtype) if isinstance(t, (int, float)) else t for t in inputs]
        dtype = bool if operator in ("Greater", "Less", "And") else self.x.dtype
        return self._fwd.emit(operator, *tensors, dtype=dtype, shape=self.x.shape)

    def attribute(self, name: str, default: float) -> float:
        return float(self.node.attrs.get(name, default))

    def where_positive(self, positive: Tensor | float, otherwise: Tensor | float) -> gs.Variable:
        """One value where x > 0, another elsewhere, zero included."""
        return self("Where", self("Greater", self.x, 0.0), positive, otherwise)

    def exponential(self, scale: float = 1.0) -> gs.Variable:
        """exp(scale * x) for x <= 0; where x > 0 it is 1, so that nothing overflows."""
        return self("Exp", self("Mul", self("Min", self.x, 0.0), scale))


# ---------------------------------------------------------------- slopes, written from the derivatives


def _leaky(f: Forward) -> Tensor:
    return f.where_positive(1.0, f.attribute("alpha", 0.01))


def _prelu(f: Forward) -> Tensor:
    return f.where_positive(1.0, f.node.inputs[1])


def _elu(f: Forward) -> Tensor:
    return f.where_positive(1.0, f("Mul", f.exponential(), f.attribute("alpha", 1.0)))


def _selu(f: Forward) -> Tensor:
    alpha, gamma = (
        f.attribute("alpha", 1.67326319217681884765625),
        f.attribute("gamma", 1.05070102214813232421875),
    )
    return f.where_positive(gamma, f("Mul", f.exponential(), alpha * gamma))


def _celu(f: Forward) -> Tensor:
    return f.where_positive(1.0, f.exponential(1 / f.attribute("alpha", 1.0)))


def _softplus(f: Forward) -> Tensor:
    return f("Sigmoid", f.x)


def _hard_swish(f: Forward) -> Tensor:
    """x / 3 + 1/2 for -3 < x < 3, else 0 or 1."""
    inside = f("Less", f("Abs", f.x), 3.0)
    return f("Where", inside, f("Add", f("Mul", f.x, 1 / 3), 0.5), f.where_positive(1.0, 0.0))


def _silu(f: Forward) -> Tensor:
    """s (1 + x (1 - s)), s = sigmoid(x)."""
    s = f("Sigmoid", f.x)
    return f("Mul", s, f("Add", f("Mul", f.x, f("Sub", 1.0, s)), 1.0))


def _gelu(f: Forward) -> Tensor:
    """Phi(x) + x phi(x), or the same of the tanh approximation."""
    if f.node.attrs.get("approximate", "none") == "tanh":
        return _gelu_tanh(f)
    cumulative = f("Mul", f("Add", f("Erf", f("Mul", f.x, math.sqrt(0.5))), 1.0), 0.5)
    density = f("Mul", f("Exp", f("Mul", f("Mul", f.x, f.x), -0.5)), 1 / math.sqrt(2 * math.pi))
    return f("Add", cumulative, f("Mul", f.x, density))


def _gelu_tanh(f: Forward) -> Tensor:
    """(1 + t) / 2 + x (1 - t^2) u' / 2, t = tanh(u), u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    c, square = math.sqrt(2 / math.pi), f("Mul", f.x, f.x)
    u = f("Mul", f.x, f("Add", f("Mul", square, 0.044715 * c), c))
    u_slope = f("Add", f("Mul", square, 3 * 0.044715 * c), c)
    t = f("Tanh", u)
    inner = f("Mul", f("Mul", f.x, u_slope), f("Sub", 1.0, f("Mul", t, t)))
    return f("Mul", f("Add", f("Add", t, 1.0), inner), 0.5)


def _mish(f: Forward) -> Tensor:
    """w + x sigmoid(x) (1 - w^2), w = tanh(softplus(x))."""
    w = f("Tanh", f("Softplus", f.x))
    return f("Add", w, f("Mul", f("Mul", f.x, f("Sigmoid", f.x)), f("Sub", 1.0, f("Mul", w, w))))


RECTIFIERS: Mapping[str, Slope] = {
    "Celu": _celu,
    "Elu": _elu,
    "Gelu": _gelu,
    "HardSwish": _hard_swish,
    "LeakyRelu": _leaky,
    "Mish": _mish,
    "PRelu": _prelu,
    "Selu": _selu,
    "Silu": _silu,
    "Softplus": _softplus,
}


def _hard_sigmoid(f: Forward) -> Tensor:
    """alpha where 0 < y < 1."""
    inside = f("And", f("Greater", f.y, 0.0), f("Less", f.y, 1.0))
    return f("Where", inside, f.attribute("alpha", 0.2), 0.0)


def _erf(f: Forward) -> Tensor:
    """2 / sqrt(pi) exp(-x^2)."""
    return f("Mul", f("Exp", f("Neg", f("Mul", f.x, f.x))), 2 / math.sqrt(math.pi))


def _pow(f: Forward) -> Tensor:
    """k x^(k - 1)."""
    k = constant(f.node, 1, "exponent").astype(f.x.dtype)
    return f("Mul", f("Pow", f.x, np.asarray(k - 1, k.dtype)), k)


SQUASHERS: Mapping[str, Slope] = {
    "Abs": lambda f: f("Sign", f.x),
    "Erf": _erf,
    "Exp": lambda f: f.y,
    "HardSigmoid": _hard_sigmoid,
    "Log": lambda f: f("Reciprocal", f.x),
    "Pow": _pow,
    "Reciprocal": lambda f: f("Neg", f("Mul", f.y, f.y)),
    "Sigmoid": lambda f: f("Mul", f.y, f("Sub", 1.0, f.y)),
    "Sqrt": lambda f: f("Div", 0.5, f.y),
    "Tanh": lambda f: f("Sub", 1.0, f("Mul", f.y, f.y)),
}


# ---------------------------------------------------------------- rules


def _slope(fwd: Builder, node: gs.Node) -> Bottleneck:
    """r = the derivative at x."""
    return (op.slope(fwd, {**RECTIFIERS, **SQUASHERS}[node.op](Forward(fwd, node))),)


def _scale(rev: Builder, node: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = y_hat * r."""
    (slope,) = r
    return (op.scale(rev, y_hat, slope, _most(node)),)


def _most(node: gs.Node) -> float:
    """What no slope exceeds; infinite where that hangs on x."""
    if node.op in ("Exp", "Log", "Pow", "Reciprocal", "Sqrt"):
        return math.inf
    given = [node.attrs.get(name, 1.0) for name in ("alpha", "gamma")]
    given += [tensor.values for tensor in node.inputs if isinstance(tensor, gs.Constant)]
    # None of fixed form is steeper than 2; SELU's slope has two factors.
    return 2 * math.prod(max(1.0, float(np.abs(values).max(initial=0))) for values in given)


def _softmax(rev: Builder, softmax: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = y * (y_hat - sum of y_hat * y over the axis)."""
    (y,) = r
    axis = np.array([softmax.attrs.get("axis", -1)])
    like = {"dtype": y_hat.dtype, "shape": y_hat.shape}
    product = rev.emit("Mul", y_hat, y, **like)
    shape = [1 if i == axis[0] % len(y.shape) else n for i, n in enumerate(y_hat.shape)]
    total = rev.emit("ReduceSum", product, axis, dtype=y_hat.dtype, shape=shape)
    return (rev.emit("Sub", product, rev.emit("Mul", y, total, **like), **like),)


def _clip_mask(fwd: Builder, clip: gs.Node) -> Bottleneck:
    """r = [lo < x < hi], which is [lo < y < hi]: reading x would undo fusion with the convolution before."""
    y = clip.outputs[0]
    bounds = [tensor if not tensor.is_empty() else None for tensor in clip.inputs[1:]]
    low, high = (*bounds, None, None)[:2]
    like = {"dtype": y.dtype, "shape": y.shape}
    inside = [fwd.emit("Sub", y, low, **like)] if low is not None else []
    inside += [fwd.emit("Sub", high, y, **like)] if high is not None else []
    if not inside:
        return ()
    return (op.mask(fwd, inside[0] if len(inside) == 1 else fwd.emit("Min", *inside, **like)),)


def _clip_gate(rev: Builder, clip: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = y_hat * r; a Clip without bounds is the identity."""
    return (op.gate(rev, y_hat, *r),) if r else (y_hat,)


def _threshold_mask(fwd: Builder, node: gs.Node) -> Bottleneck:
    """r = [x > alpha]."""
    x = node.inputs[0]
    above = fwd.emit("Sub", x, np.array(node.attrs.get("alpha", 1.0), x.dtype), dtype=x.dtype, shape=x.shape)
    return (op.mask(fwd, above),)


slope = Rule("BP", _scale, _slope)
softmax = Rule("BP", _softmax, lambda fwd, node: (op.value(fwd, node.outputs[0]),))
clip = Rule("BP", _clip_gate, _clip_mask)
threshold = Rule("BP", _clip_gate, _threshold_mask)

Rules = Mapping[str, Rule]
BP: Rules = {
    "Relu": relu.mask,
    "Clip": clip,
    "ThresholdedRelu": threshold,
    **dict.fromkeys(RECTIFIERS, slope),
}
IDENTITY: Rules = dict.fromkeys(BP, relu.identity)
RECTIFY: Rules = dict.fromkeys(BP, relu.rectify)
BP_RECTIFY: Rules = {name: compose(relu.rectify, rule) for name, rule in BP.items()}
SQUASH: Rules = {"Softmax": softmax, **dict.fromkeys(SQUASHERS, slope)}
