"""The part of the picture that a neuron can see: its theoretical support, whatever the weights."""

from collections.abc import Sequence

from revgraph.graph import computed_inputs, gs
from revgraph.window import Window

Interval = tuple[int, int]
"""First and last element, both included; they may lie in the padding."""

WINDOWED = ("AveragePool", "Conv", "LpPool", "MaxPool")
# fmt: off
POINTWISE = frozenset({
    "Add", "BatchNormalization", "Cast", "Clip", "Concat", "Div", "Dropout", "Elu", "Erf", "Gelu",
    "HardSigmoid", "HardSwish", "Identity", "LRN", "LeakyRelu", "Max", "Min", "Mish", "Mul", "PRelu", "Relu",
    "Sigmoid", "Sub", "Sum", "Tanh",
})
# fmt: on
"""Of those what has channels reads all of them: only height and width count here."""


def field(
    path: Sequence[gs.Node], x: str, size: Sequence[int], at: str, position: Sequence[int]
) -> tuple[slice, ...]:
    """The neuron's receptive field.

    Args:
        path: The nodes from x, in order.
        x: The input's name.
        size: Its spatial size.
        at: The name of the neuron's layer.
        position: Where it is; empty for a layer without spatial axes.

    Returns:
        A slice of x for each spatial axis; all of x wherever a layer on the way mixes positions otherwise.
    """
    whole = [(0, n - 1) for n in size]
    seen = {at: [(i, i) for i in position] if len(position) == len(size) else whole}
    for node in reversed(path):
        if (interval := seen.get(node.outputs[0].name)) is None:
            continue
        behind = _behind(node, interval)
        for tensor in computed_inputs(node):
            seen[tensor.name] = whole if behind is None else _union(behind, seen.get(tensor.name))
    found = seen.get(x, whole)
    return tuple(
        slice(min(max(low, 0), n - 1), min(max(high, 0), n - 1) + 1)
        for (low, high), n in zip(found, size, strict=True)
    )


def _behind(node: gs.Node, interval: list[Interval]) -> list[Interval] | None:
    """What of its input a node reads for an interval of its output; None where that is not by windows."""
    if node.op in WINDOWED and node.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID"):
        window = Window.of(node.attrs, node.inputs[1].shape[2:] if node.op == "Conv" else None)
        axes = zip(interval, window.strides, window.begin, window.extent, strict=True)
        return [(low * s - b, high * s - b + e - 1) for (low, high), s, b, e in axes]
    return interval if node.op in POINTWISE and len(node.outputs[0].shape) == 2 + len(interval) else None


def _union(a: list[Interval], b: list[Interval] | None) -> list[Interval]:
    if b is None:
        return a
    return [
        (min(*lows), max(*highs))
        for lows, highs in (zip(*pair, strict=True) for pair in zip(a, b, strict=True))
    ]
