"""Reversing ReLU (RU in the paper): Eqs. (7) and (10)."""

from revgraph import op
from revgraph.graph import Builder, Tensor, gs
from revgraph.rules.rule import Bottleneck, Rule, XHats, unchanged


def _mask(fwd: Builder, relu: gs.Node) -> Bottleneck:
    """r = [x > 0], read off y, positive exactly where x is: reading x would undo Conv+Relu fusion."""
    return (op.mask(fwd, relu.outputs[0]),)


def _gate(rev: Builder, relu: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = y_hat * r."""
    (mask,) = r
    return (op.gate(rev, y_hat, mask),)


def _rectify(rev: Builder, relu: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = max(y_hat, 0)."""
    return (op.rectify(rev, y_hat),)


identity = Rule("1", unchanged)
rectify = Rule("RU", _rectify)  # DeConvNet
mask = Rule("RU^BP", _gate, _mask)  # SaliNet; DeSaliNet is RU o RU^BP, composed for every rectifier at once
