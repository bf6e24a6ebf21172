"""Activations as exporters write them, out of several elementwise nodes.

Spellings differ between exporters and their versions, functions do not: a group of nodes is recognised by
what it computes.
"""

import math
from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np

from revgraph.canonical.recognition import Found, absorbable, constants, evaluate, sources
from revgraph.graph import computed_inputs, gs

# fmt: off
ELEMENTWISE = frozenset({
    "Add", "Clip", "Div", "Erf", "Exp", "HardSigmoid", "Log", "Max", "Min", "Mul", "Neg", "Pow",
    "Reciprocal", "Relu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh",
})
# fmt: on
CLIPS = ("Clip", "Max", "Min", "Relu")
MAX_NODES = 12
GRID = np.concatenate([np.linspace(-8, 8, 641), [-30, 30]])
TOLERANCE = 2e-5
"""Constants are written in float32 or to six digits; the closest functions, the two Gelus, differ by 5e-4."""
ROUNDED = 2e-3
"""The same for constants in float16."""


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def _erf(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(value) for value in x])


FUNCTIONS: Mapping[str, tuple[str, dict[str, Any], Callable[[np.ndarray], np.ndarray]]] = {
    "SiLU": ("Silu", {}, lambda x: x * _sigmoid(x)),
    "HardSwish": ("HardSwish", {}, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "Mish": ("Mish", {}, lambda x: x * np.tanh(np.logaddexp(0, x))),
    "Gelu": ("Gelu", {}, lambda x: x * 0.5 * (1 + _erf(x / np.sqrt(2)))),
    "tanh Gelu": (
        "Gelu",
        {"approximate": "tanh"},
        lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    ),
    "Softplus": ("Softplus", {}, lambda x: np.logaddexp(0, x)),
}


Known = tuple[str, dict[str, Any], list[gs.Constant]]
"""An operator, its attributes, and its inputs after the first."""


def recognise(end: gs.Node, keep: Container[str]) -> Found | None:
    """Grow a group back from `end`; the largest that is a known function of one tensor stands."""
    if end.op not in ELEMENTWISE or not end.outputs or not _of_numbers(end):
        return None
    found, nodes, joining = None, list[gs.Node](), [end]
    while joining and len(nodes) < MAX_NODES:
        nodes.append(joining[0])
        read = sources(nodes)
        alone = len(nodes) == 1 and end.op not in ("Max", "Min")
        if len(read) == 1 and not alone and (known := _identify(nodes, read[0])):
            found = list(nodes), read[0], known
        near = (absorbable(tensor, nodes, keep, ELEMENTWISE) for tensor in read)
        joining = [node for node in near if node is not None and _of_numbers(node)]
    if found is None:
        return None
    members, x, (operator, attributes, bounds) = found
    return members, [gs.Node(operator, end.name, attributes, [x, *bounds])]


def _of_numbers(node: gs.Node) -> bool:
    """Whether the node's constants are single numbers."""
    return all(t.is_empty() or isinstance(t, gs.Variable) or t.values.size == 1 for t in node.inputs)


def _identify(nodes: list[gs.Node], x: gs.Variable) -> Known | None:
    y = evaluate(nodes, {x.name: GRID})
    if y is None or y.size != GRID.size:
        return None
    y = y.ravel()
    errors = {}
    for name, (*_, function) in FUNCTIONS.items():
        expected = function(GRID)
        errors[name] = np.max(np.abs(y - expected) / (1 + np.abs(expected)))
    nearest = min(errors, key=lambda name: errors[name])
    if errors[nearest] <= (ROUNDED if any(c.dtype == np.float16 for c in _constants(nodes)) else TOLERANCE):
        operator, attributes, _ = FUNCTIONS[nearest]
        return operator, dict(attributes), []
    # x - relu(x) and max(x, relu(x)) are clipped x's as well, but nobody means them so.
    chain = all(node.op in CLIPS and len(computed_inputs(node)) == 1 for node in nodes)
    return _identify_clip(y, x, nodes[0].name) if chain else None


def _constants(nodes: list[gs.Node]) -> list[Any]:
    return [values for node in nodes for values in constants(node)]


def _identify_clip(y: np.ndarray, x: gs.Variable, name: str) -> Known | None:
    low, high = y.min(), y.max()
    if low >= high or not np.allclose(y, np.clip(GRID, low, high), rtol=0, atol=1e-6):
        return None
    if low == 0 and high == GRID.max():
        return "Relu", {}, []
    # A bound at the end of the grid is none.
    bounds = {"low": low if low > GRID.min() else -np.inf, "high": high if high < GRID.max() else np.inf}
    if not np.isfinite(list(bounds.values())).any():
        return None
    return "Clip", {}, [gs.Constant(f"{name}/bound/{k}", np.array(n, x.dtype)) for k, n in bounds.items()]
