"""What a rule is, and how rules compose."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from revgraph.errors import RevgraphError
from revgraph.graph import Builder, Tensor, gs
from revgraph.window import Window

MAX_KERNEL = 2**26
"""Most elements of a kernel that a reversed pool is written with: 256 MiB of float32."""

KEEP_BATCH = "keep the batch on the first axis, or choose --at before this node"
"""The remedy where a layer moves the images of a batch, or mixes them."""

Bottleneck = tuple[Tensor, ...]
XHats = tuple[Tensor | None, ...]
"""x_hat of the node's first inputs, in order; None for one that needs none, such as a constant."""
Reverse = Callable[[Builder, gs.Node, Tensor, Bottleneck], XHats]


def empty(fwd: Builder, node: gs.Node) -> Bottleneck:
    """r = (): the layer's reversal needs nothing from the forward pass."""
    return ()


def unchanged(rev: Builder, node: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
    """x_hat = y_hat."""
    return (y_hat,)


@dataclass(frozen=True, slots=True)
class Rule:
    """How one layer is reversed, Eq. (2): forward x -> (y, r), reversed (y_hat, r) -> x_hat.

    Attributes:
        name: What `inspect` calls it.
        reverse: Emits the reversed layer.
        bottleneck: Emits r into the forward graph, where it becomes an extra output.
    """

    name: str
    reverse: Reverse
    bottleneck: Callable[[Builder, gs.Node], Bottleneck] = empty


def compose(outer: Rule, inner: Rule) -> Rule:
    """`outer` after `inner` in the reversed direction, for one input; `outer` needs no bottleneck."""

    def reverse(rev: Builder, node: gs.Node, y_hat: Tensor, r: Bottleneck) -> XHats:
        (x_hat,) = inner.reverse(rev, node, y_hat, r)
        return outer.reverse(rev, node, x_hat, ())

    return Rule(f"{outer.name} o {inner.name}", reverse, inner.bottleneck)


def cannot_reverse(node: gs.Node, why: str, remedy: str) -> RevgraphError:
    """The error for a node that has a rule, but not for this use of it."""
    return RevgraphError(f"cannot reverse node '{node.name}' ({node.op})", why, remedy)


def free_axis(node: gs.Node, axis: int) -> RevgraphError:
    """The error for a node whose reversal needs a size that the taps of sizes do not have."""
    why = f"the size along axis {axis} is known at run time only"
    return cannot_reverse(node, why, "give the model a fixed input size")


def window(node: gs.Node, kernel: Sequence[int] | None = None) -> Window:
    """The node's window; a pool, which has no `kernel` of weights, slides over each channel by itself.

    Raises:
        RevgraphError: It is absurdly large, or a pool's channels are known at run time only.
    """
    found = Window.of(node.attrs, kernel)
    channels = node.inputs[0].shape[1]
    if kernel is None and not isinstance(channels, int):
        raise free_axis(node, 1)
    if math.prod(found.kernel) * (channels if isinstance(channels, int) else 1) > MAX_KERNEL:
        raise cannot_reverse(node, f"its kernel {list(found.kernel)} is absurdly large", "check the model")
    return found


def constant(node: gs.Node, index: int, what: str) -> np.ndarray:
    """The values of an input that must be known at compile time.

    Raises:
        RevgraphError: It is computed at run time.
    """
    tensor = node.inputs[index]
    if not isinstance(tensor, gs.Constant):
        why = f"its {what} is computed at run time"
        remedy = f"make '{tensor.name}' an initializer, or choose --at before this node"
        raise cannot_reverse(node, why, remedy)
    values: np.ndarray = tensor.values
    return values
