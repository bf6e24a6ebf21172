"""Activations as exporters write them, in several nodes; normalisations beside them are `lrn`'s.

An expression in one tensor x is brought to a normal form, a polynomial in x and in functions of such
polynomials, so that the order of its products and what divides or multiplies make no difference:
0.5 * x * (1 + Erf(x / sqrt 2)) and x * (Erf(0.7071 * x) + 1) / 2 are both {x: 0.5, x Erf{x: 0.707}: 0.5}.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx

from revgraph.reference.constants import array
from revgraph.reference.graph import Graph, run
from revgraph.reference.layer import Array
from revgraph.reference.lrn import response
from revgraph.reference.plain import plain
from revgraph.reference.table import OPERATORS

Form: TypeAlias = dict[tuple[Any, ...], float]  # a polynomial: monomials, as sorted symbols, to coefficients
X: Form = {("x",): 1.0}
DEPTH, TERMS = 12, 8  # no activation is written longer


# ----- The algebra -----


def _number(value: float) -> Form:
    return {(): value}


def _plus(f: Form, g: Form) -> Form:
    return {monomial: f.get(monomial, 0.0) + g.get(monomial, 0.0) for monomial in {**f, **g}}


def _times(f: Form, g: Form) -> Form:
    product: Form = {}
    for a, m in f.items():
        for b, n in g.items():
            product = _plus(product, {tuple(sorted((*a, *b), key=str)): m * n})
    return product


def _over(f: Form, g: Form) -> Form | None:
    return _times(f, _number(1 / g[()])) if set(g) == {()} and g[()] else None


def _power(f: Form, g: Form) -> Form | None:
    powers = {2.0: _times(f, f), 3.0: _times(_times(f, f), f)}
    return powers.get(g[()]) if set(g) == {()} else None


def _key(f: Form) -> Any:
    """To three digits: what float16 keeps of a constant."""
    return frozenset((monomial, f"{value:.3g}") for monomial, value in f.items() if value)


def _function(name: str, f: Form) -> Form:
    return {((name, _key(f)),): 1.0}


def _log(f: Form) -> Form:
    """log(1 + exp(g)) is softplus(g)."""
    (monomial,) = f.keys() - {()} if len(f) == 2 else [()]
    if len(monomial) == 1 and monomial[0][0] == "Exp" and f == {(): 1.0, monomial: 1.0}:
        return {(("Softplus", monomial[0][1]),): 1.0}
    return _function("Log", f)


def _ramp(f: Form, top: float = 1.0) -> Form:
    """min{max{f, 0}, top}."""
    return _times(_number(top), _function("Ramp", _times(f, _number(1 / top))))


def _hard_sigmoid(node: onnx.NodeProto, f: Form) -> Form:
    given = {"alpha": 0.2, "beta": 0.5} | {a.name: a.f for a in node.attribute}
    return _ramp(_plus(_times(_number(given["alpha"]), f), _number(given["beta"])))


ALGEBRA: Mapping[str, Callable[..., Form | None]] = {
    "Add": _plus,
    "Div": _over,
    "Erf": lambda f: _function("Erf", f),
    "Exp": lambda f: _function("Exp", f),
    "Log": _log,
    "Mul": _times,
    "Neg": lambda f: _times(f, _number(-1.0)),
    "Pow": _power,
    "Sigmoid": lambda f: _function("Sigmoid", f),
    "Softplus": lambda f: _function("Softplus", f),
    "Sub": lambda f, g: _plus(f, _times(g, _number(-1.0))),
    "Tanh": lambda f: _function("Tanh", f),
}
BOUNDS = {"Clip", "Max", "Min", "Relu"}
READABLE = {*ALGEBRA, *BOUNDS, "HardSigmoid"}

_HALF = _times(X, _number(0.5))
_CUBIC = _plus(X, _times(_number(0.044715), _times(X, _times(X, X))))
_ERF = _function("Erf", _times(X, _number(math.sqrt(1 / 2))))
_TANH = _function("Tanh", _times(_CUBIC, _number(math.sqrt(2 / math.pi))))
ACTIVATIONS: Mapping[Any, tuple[str, dict[str, Any]]] = {
    _key(_times(X, _function("Sigmoid", X))): ("Swish", {}),
    _key(_times(X, _ramp(_plus(_times(X, _number(1 / 6)), _number(1 / 2))))): ("HardSwish", {}),
    _key(_times(X, _function("Tanh", _function("Softplus", X)))): ("Mish", {}),
    _key(_plus(_HALF, _times(_HALF, _ERF))): ("Gelu", {}),
    _key(_plus(_HALF, _times(_HALF, _TANH))): ("Gelu", {"approximate": "tanh"}),
}


# ----- Reading a graph -----


@dataclass(frozen=True)
class _Source:
    """The graph that is searched.

    Attributes:
        graph: Its nodes, and what a run of them gave.
        constants: The tensors of one element that depend on no input.
        kept: The tensors that someone else wants: the model's outputs, and where the reversal starts.
    """

    graph: Graph
    constants: Mapping[str, float]
    kept: set[str]


def _source(graph: Graph, at: str | None) -> _Source:
    outputs = {output.name for output in graph.model.graph.output}
    return _Source(graph, _constants(graph), outputs | {at or ""})


def _constants(graph: Graph) -> dict[str, float]:
    known = {t.name: array(t) for t in graph.model.graph.initializer if math.prod(t.dims) == 1}
    for node in graph.nodes:
        if node.op_type in OPERATORS and all(name in known for name in node.input):
            values = run(graph.model, node, known)
            known |= {name: value for name, value in values.items() if value.size == 1}
    return {name: float(value.item()) for name, value in known.items() if value.dtype.kind in "fiu"}


def _region(source: _Source, y: str) -> set[str]:
    """The tensors that an expression for y may be made of."""
    region = layer = {y}
    for _ in range(DEPTH):
        nodes = [source.graph.makers[name] for name in layer if name in source.graph.makers]
        layer = {name for node in nodes if node.op_type in READABLE for name in node.input} - region
        region = region | layer
    return region


@dataclass(frozen=True)
class _Reading:
    """The tensors of a region as polynomials in one tensor x.

    Attributes:
        source: The graph.
        region: Where to look; anything else is unknown.
        known: The forms read so far, at first that of x; None for what is no polynomial.
    """

    source: _Source
    region: set[str]
    known: dict[str, Form | None]

    def form(self, name: str) -> Form | None:
        if name not in self.known:
            form = self._read(name)
            self.known[name] = form if form is None or len(form) <= TERMS else None
        return self.known[name]

    def _read(self, name: str) -> Form | None:
        if name in self.source.constants:
            return _number(self.source.constants[name])
        node = self.source.graph.makers.get(name)
        if node is None or name not in self.region or node.op_type not in READABLE:
            return None
        if node.op_type in BOUNDS:
            return self._bounded(*_held(self.source, name))
        forms = [form for form in map(self.form, node.input) if form is not None]
        if len(forms) < len(node.input):
            return None
        return _hard_sigmoid(node, *forms) if node.op_type == "HardSigmoid" else ALGEBRA[node.op_type](*forms)

    def _bounded(self, name: str, lo: float, hi: float) -> Form | None:
        form = self.form(name) if lo == 0 < hi < math.inf else None
        return None if form is None else _ramp(form, hi)


def _held(source: _Source, name: str) -> tuple[str, float, float]:
    """(x, lo, hi) where the tensor is x held between two constants by Clip, Relu, Max and Min.

    They are infinite where nothing holds it, and x is then the tensor itself.
    """
    node = source.graph.makers.get(name)
    bounds = _bounds(source, node) if node is not None and node.op_type in BOUNDS else None
    if bounds is None:
        return name, -math.inf, math.inf
    inner, lo, hi = bounds
    x, low, high = _held(source, inner)
    return x, min(max(low, lo), hi), min(max(high, lo), hi)


def _bounds(source: _Source, node: onnx.NodeProto) -> tuple[str, float, float] | None:
    """What the node bounds, and its constants; None where they are none."""
    if node.op_type == "Relu":
        return node.input[0], 0.0, math.inf
    if node.op_type == "Clip":
        return _clipped(source, node)
    limits = [source.constants[name] for name in node.input if name in source.constants]
    names = [name for name in node.input if name not in source.constants]
    if len(limits) != 1 or len(names) != 1:
        return None
    return (names[0], limits[0], math.inf) if node.op_type == "Max" else (names[0], -math.inf, limits[0])


def _clipped(source: _Source, node: onnx.NodeProto) -> tuple[str, float, float] | None:
    bounds = {"min": -math.inf, "max": math.inf} | {a.name: a.f for a in node.attribute}
    for bound, name in zip(bounds, node.input[1:], strict=False):
        if name and name not in source.constants:
            return None
        bounds[bound] = source.constants.get(name, bounds[bound])
    return node.input[0], bounds["min"], bounds["max"]


# ----- What stands for one operator -----


def _bounded(source: _Source, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Max(x, 0) is a Relu, Min(Max(x, lo), hi) a Clip."""
    y = node.output[0]
    x, lo, hi = _held(source, y)
    if (lo, hi) == (0.0, math.inf):
        return onnx.helper.make_node("Relu", [x], [y])
    finite = math.isfinite(lo) and math.isfinite(hi)
    return onnx.helper.make_node("Clip", [x], [y], min=lo, max=hi) if finite else None


def _product(source: _Source, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The activation whose normal form in some x this is."""
    y = node.output[0]
    region = _region(source, y)
    for x in sorted(region - {y} - source.constants.keys()):
        form = _Reading(source, region, {x: X}).form(y)
        if form is not None and _key(form) in ACTIVATIONS:
            op_type, attributes = ACTIVATIONS[_key(form)]
            return onnx.helper.make_node(op_type, [x], [y], **attributes)
    return None


def _one(source: _Source, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """What ends at this node and stands for one operator."""
    if node.op_type in ("Max", "Min"):
        return _bounded(source, node)
    if node.op_type in ("Div", "Mul"):
        return _product(source, node) or response(source.graph, node)
    return None


def _found(source: _Source) -> Iterator[tuple[onnx.NodeProto, set[str]]]:
    """Each recognised operator, and the inner tensors that it replaces; the longest pattern first."""
    taken, readers = set[str](), source.graph.readers
    for node in reversed(source.graph.nodes):
        y = node.output[0]
        one = _one(source, node) if y not in taken else None
        inside = source.graph.between(one.input[0], y) if one is not None else set()
        private = all(readers[name] <= inside for name in inside - {y} if name in readers)
        if one is not None and private and not source.kept & (inside - {y}):
            taken |= inside
            yield one, inside - {y}


def recognised(
    model: onnx.ModelProto, at: str | None = None, tensors: Mapping[str, Array] | None = None
) -> list[onnx.NodeProto]:
    """What the model writes in several nodes, each as the one node that it stands for.

    Args:
        model: The user's model.
        at: Where the reversal starts; a pattern that it is inside of is left as it is.
        tensors: The result of `forward`; without one, only activations are recognised, and none in branches.
    """
    nodes = model.graph.node if tensors is None else plain(model.graph.node, tensors)
    graph = Graph(model, list(nodes), tensors or {})
    return [one for one, _ in _found(_source(graph, at))][::-1]


def whole(graph: Graph, at: str) -> list[onnx.NodeProto]:
    """The nodes, each recognised activation and normalisation as one."""
    found = list(_found(_source(graph, at)))
    ones = {one.output[0]: one for one, _ in found}
    inner = {name for _, names in found for name in names}
    return [ones.get(node.output[0], node) for node in graph.nodes if node.output[0] not in inner]
