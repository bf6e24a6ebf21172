"""Reversing products and quotients.

By a constant they are affine, Eq. (6); of two activations they are BP-reversed, Eq. (5). The second is how
squeeze-and-excitation gates its channels: each factor's x_hat is y_hat times the other.
"""

import numpy as np

from revgraph import op
from revgraph.graph import Builder, Tensor, gs
from revgraph.rules.axes import unbroadcast
from revgraph.rules.rule import Bottleneck, Rule, XHats


def _other(fwd: Builder, node: gs.Node, index: int) -> Tensor:
    """The operand at `index`, tapped if the run computes it."""
    operand = node.inputs[index]
    return operand if isinstance(operand, gs.Constant) else op.value(fwd, operand)


def _operands(fwd: Builder, node: gs.Node) -> Bottleneck:
    """r = (a, b); what the reversal of the one that depends on x does not read is dropped."""
    return (_other(fwd, node, 0), _other(fwd, node, 1))


def _mul(rev: Builder, mul: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """a_hat = y_hat * b and b_hat = y_hat * a for y = a * b."""
    a, b = mul.inputs
    r_a, r_b = r
    return (_factor(rev, y_hat, r_b, a), _factor(rev, y_hat, r_a, b))


def _factor(rev: Builder, y_hat: Tensor, factor: Tensor, x: Tensor) -> Tensor | None:
    if isinstance(x, gs.Constant):
        return None
    return unbroadcast(rev, op.scale(rev, y_hat, factor), x)


def _div(rev: Builder, div: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """a_hat = y_hat / b and b_hat = -a_hat * a / b for y = a / b."""
    a, b = div.inputs
    r_a, r_b = r
    like = {"dtype": y_hat.dtype, "shape": y_hat.shape}
    quotient = rev.emit("Div", y_hat, r_b, **like)
    if isinstance(b, gs.Constant):
        return (unbroadcast(rev, quotient, a),)
    product = rev.emit("Mul", quotient, r_a, **like)
    negative = rev.emit("Neg", rev.emit("Div", product, r_b, **like), **like)
    return (unbroadcast(rev, quotient, a), unbroadcast(rev, negative, b))


def _sub(rev: Builder, sub: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """a_hat = y_hat and b_hat = -y_hat for y = a - b."""
    a, b = sub.inputs
    return (unbroadcast(rev, y_hat, a), unbroadcast(rev, _negative(rev, y_hat), b))


def _neg(rev: Builder, neg: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = -y_hat."""
    return (_negative(rev, y_hat),)


def _negative(rev: Builder, y_hat: Tensor) -> Tensor:
    return op.scale(rev, y_hat, np.array(-1, y_hat.dtype))


mul = Rule("times the other", _mul, _operands)
div = Rule("quotient rule", _div, _operands)
sub = Rule("copy", _sub)
neg = Rule("negative", _neg)
