"""Local response normalisation as exporters write it: x / (bias + alpha / n * sum of x^2 over channels)^beta.

They sum by AveragePool, Conv or Slices behind Pads and Reshapes. Whatever the way, the group is recognised by
what it computes, so that the variant's choice of LRN's reversal holds for it (Sect. 3.1).
"""

import math
from collections.abc import Container, Iterator, Sequence
from typing import Any

import numpy as np

from revgraph.canonical.recognition import Found, absorbable, constants, evaluate, sources
from revgraph.errors import RevgraphError
from revgraph.graph import Shape, computed_inputs, gs

# fmt: off
OPERATORS = frozenset({
    "Add", "AveragePool", "Cast", "Concat", "Constant", "Conv", "Div", "Exp", "Expand", "Gather", "Identity",
    "Log", "Mul", "Neg", "Pad", "Pow", "Reciprocal", "ReduceSum", "Reshape", "Shape", "Slice", "Sqrt",
    "Squeeze", "Sub", "Transpose", "Unsqueeze",
})
# fmt: on
MAX_NODES = 64
MAX_ELEMENTS = 2**26
"""Of a map that a group is tried on: 512 MiB in float64."""
FREE = 4
"""A free size is taken to be this."""
MANY = 2**16
SAMPLE = 256
"""Numbers that tell whether a size may be right."""
TOLERANCE = 1e-6
"""Of float64, with constants rounded to float32."""


def recognise(end: gs.Node, keep: Container[str]) -> Found | None:
    """The group that ends in this division, if it is an LRN of its numerator."""
    if end.op not in ("Div", "Mul") or len(computed_inputs(end)) != 2 or not end.outputs:
        return None
    for x in end.inputs:
        nodes = _group(end, x, keep)
        known = _fit(nodes, x) if nodes and len(x.shape or ()) >= 3 else None
        if nodes and known:
            axis, attributes = known
            return nodes, _stand_ins(end, x, axis, attributes)
    return None


def _group(end: gs.Node, x: gs.Variable, keep: Container[str]) -> list[gs.Node] | None:
    """`end` and all that serves it alone, back to x; what else it reads gives its shape only."""
    nodes, joining = list[gs.Node](), [end]
    while joining:
        nodes.append(joining[0])
        if len(nodes) > MAX_NODES:
            return None
        others = [tensor for tensor in sources(nodes) if tensor is not x]
        joining = [node for tensor in others if (node := absorbable(tensor, nodes, keep, OPERATORS))]
    read = [node for node in nodes for tensor in computed_inputs(node) if any(tensor is t for t in others)]
    powers = [node for node in nodes if node.op in ("Pow", "Sqrt")]
    return nodes if powers and all(node.op == "Shape" for node in read) else None


def _fit(nodes: list[gs.Node], x: gs.Variable) -> tuple[int, dict[str, Any]] | None:
    """The axis of the channels and the attributes with which LRN is what the group computes."""
    feeds = {tensor.name: np.zeros(_probed(tensor.shape or ())) for tensor in sources(nodes)}
    shape, rng = _probed(x.shape), np.random.default_rng(0)
    # One picture of one position would fit any window.
    count = 3 if math.prod(shape) < MANY else 1
    probes = [rng.uniform(0.5, 2, shape) * math.sqrt(1e3) for _ in range(count)]
    found = [evaluate(nodes, feeds | {x.name: probe}) for probe in probes]
    ys = [y for y in found if y is not None and y.shape == tuple(shape)]
    if len(ys) < count:
        return None
    probe, y = np.concatenate(probes), np.concatenate(ys)
    if not y.size or y.min() <= 0:  # LRN keeps signs
        return None
    for beta in filter(None, _powers(nodes)):
        with np.errstate(over="ignore"):
            s = (probe / y) ** (1 / beta)
        if not np.isfinite(s).all():
            continue
        for axis in (1, probe.ndim - 1) if probe.ndim > 3 else (1,):
            fitted = _fit_sum(s, probe**2, axis)
            # A sum over all channels with a constant is L2 normalisation, unless a window was meant.
            if fitted and (fitted["size"] < 2 * probe.shape[axis] - 1 or any(map(_slides, nodes))):
                return axis, fitted | {"beta": beta}
    return None


def _probed(shape: Shape) -> list[int]:
    """A shape with one image and small free sizes."""
    probed = [n if isinstance(n, int) else FREE if i else 1 for i, n in enumerate(shape)]
    if math.prod(probed) > MAX_ELEMENTS:
        what, why = "cannot tell whether a group of nodes is an LRN", f"its maps are {probed}, absurdly large"
        raise RevgraphError(what, why, "give the model a smaller, or a free, input size")
    return probed


def _powers(nodes: list[gs.Node]) -> Iterator[float]:
    for node in nodes:
        if node.op == "Sqrt":
            yield 0.5
        elif node.op == "Pow" and constants(node) and constants(node)[0].size == 1:
            yield abs(float(constants(node)[0].item()))


def _slides(node: gs.Node) -> bool:
    """Whether it sums over a window."""
    if node.op == "AveragePool":
        return True
    return bool(node.op == "Conv" and max(node.inputs[1].shape[2:]) > 1)


def _fit_sum(s: np.ndarray, squares: np.ndarray, axis: int) -> dict[str, Any] | None:
    """bias, alpha and n > 1 with which s is bias + alpha / n * the sum of n squares about each channel."""
    channels = s.shape[axis]
    s, squares = (np.moveaxis(t, axis, 0).reshape(channels, -1) for t in (s, squares))
    total = np.cumsum(np.concatenate([np.zeros_like(squares[:1]), squares]), axis=0)
    everywhere = np.ogrid[:channels, : s.shape[1]]
    sample = [np.random.default_rng(0).integers(n, size=SAMPLE) for n in s.shape]
    for n in range(2, 2 * channels):
        # Hundreds of sizes are tried; nearly all of them fail on the sample.
        if _line(s, total, n, sample) and (line := _line(s, total, n, everywhere)):
            scale, bias = line
            return {"size": n, "alpha": scale * n, "bias": bias}
    return None


def _line(s: np.ndarray, total: np.ndarray, n: int, at: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """scale and bias with which s is bias + scale * the sum of n squares, at these channels and positions."""
    c, position = at
    low, high = np.maximum(c - (n - 1) // 2, 0), np.minimum(c + n // 2 + 1, len(s))
    about = total[high, position] - total[low, position]
    scale, bias = np.polyfit(about.ravel(), s[c, position].ravel(), 1)
    fits = np.allclose(s[c, position], bias + scale * about, rtol=TOLERANCE, atol=0)
    return (float(scale), float(bias)) if bias > 0 and scale > 0 and fits else None


def _stand_ins(end: gs.Node, x: gs.Variable, axis: int, attributes: dict[str, Any]) -> list[gs.Node]:
    """LRN, between transpositions where the channels are not on axis 1."""
    if axis == 1:
        return [gs.Node("LRN", end.name, attributes, [x])]
    rank = len(x.shape)
    there, back = [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]
    moved, normalised = (
        gs.Variable(f"{end.name}/{name}", x.dtype, [x.shape[i] for i in there]) for name in ("moved", "lrn")
    )
    return [
        gs.Node("Transpose", f"{end.name}/to channels first", {"perm": there}, [x], [moved]),
        gs.Node("LRN", end.name, attributes, [moved], [normalised]),
        gs.Node("Transpose", f"{end.name}/back", {"perm": back}, [normalised]),
    ]
