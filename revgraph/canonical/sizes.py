"""What exporters compute from sizes, worked out where ONNX's own inference gives up.

Shape, Gather, Concat and arithmetic say "as many images as there are, and the rest flattened". With the free
dimensions as names, most of it is known before the run.
"""

import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from revgraph.graph import Tensor, gs, static
from revgraph.names import next_free

Entry = int | float | bool | str | None
"""A number, the name of a free dimension, or None where only the run knows."""
Entries = Sequence[Entry]
"""A tensor of sizes, flat; a scalar is a list of one."""
MAX_ENTRIES = 64


def settle(graph: gs.Graph) -> bool:
    """Fold sizes that are known, take the branch of an If that will be taken, write the shapes that follow.

    Returns:
        Whether there was any; then inference can tell more.
    """
    changed, outer = False, _Outer(graph)
    known: dict[str, Entries] = {}
    for node in list(graph.nodes):
        values = _typed_values(node, known)
        if values is not None:
            known[node.outputs[0].name] = values
            changed |= _fold(graph, node.outputs[0], values)
        else:
            changed |= _inline_branch(graph, node, known, outer) or _write_shape(node, known)
    return changed | _fix_batch(graph)


def _typed_values(node: gs.Node, known: Mapping[str, Entries]) -> Entries | None:
    """What the node computes, if it is a list of sizes, each number as the run would round it."""
    y = node.outputs[0] if node.outputs else None
    if y is None or y.dtype is None or y.shape is None or len(y.shape) > 1:
        return None
    values = _values_of(node, known)
    if values is None or len(values) > MAX_ENTRIES:
        return None
    return [_typed(value, np.dtype(y.dtype)) for value in values]


def _typed(entry: Entry, dtype: np.dtype[Any]) -> Entry:
    """A number as the dtype has it, None where it does not fit; names are those of integers."""
    if entry is None or isinstance(entry, str):
        return None if dtype.kind == "b" else entry
    if dtype.kind == "b":
        return bool(entry)
    if np.issubdtype(dtype, np.integer):
        # Numbers beyond float's range are compared before they are rounded; NaN compares false.
        bounds = np.iinfo(dtype)
        return int(entry) if int(bounds.min) <= entry <= int(bounds.max) else None
    with np.errstate(over="ignore"):
        return float(np.array(entry, dtype))


def _values_of(node: gs.Node, known: Mapping[str, Entries]) -> Entries | None:
    """What the node computes, if it is sizes."""
    if node.op == "Shape":
        shape = node.inputs[0].shape
        return None if shape is None else shape[node.attrs.get("start", 0) : node.attrs.get("end")]
    parts = [_entries(tensor, known) for tensor in node.inputs]
    known_parts = [part for part in parts if part is not None]
    if not parts or len(known_parts) < len(parts):
        return None
    if node.op == "Mod" and node.attrs.get("fmod", 0):
        return _elementwise(_number(math.fmod), known_parts)
    if node.op in _ARITHMETIC:
        return _elementwise(_ARITHMETIC[node.op], known_parts)
    return _MOVES[node.op](*known_parts) if node.op in _MOVES else None


def _entries(tensor: Tensor, known: Mapping[str, Entries]) -> Entries | None:
    if not isinstance(tensor, gs.Constant):
        return known.get(tensor.name)
    small = tensor.values.ndim <= 1 and tensor.values.size <= MAX_ENTRIES
    return tensor.values.ravel().tolist() if small else None


def _fold(graph: gs.Graph, tensor: gs.Variable, values: Entries) -> bool:
    """Make a constant of a tensor whose numbers are all known."""
    numbers = all(value is not None and not isinstance(value, str) for value in values)
    fits = static(tensor.shape) and math.prod(tensor.shape) == len(values) and tensor.dtype is not None
    if not numbers or not fits or any(tensor is output for output in graph.outputs):
        return False
    tensor.inputs.clear()
    tensor.to_constant(np.array(values, tensor.dtype).reshape(tensor.shape))
    return True


# ---------------------------------------------------------------- arithmetic with names


def _elementwise(function: Callable[..., Entry], parts: Sequence[Entries]) -> Entries | None:
    n = max(map(len, parts))
    if any(len(part) not in (1, n) for part in parts):
        return None
    rows = zip(*(part if len(part) == n else list(part) * n for part in parts), strict=True)
    return [function(*row) for row in rows]


def _number(function: Callable[..., Any], neutral: int | None = None) -> Callable[..., Entry]:
    """A function of numbers; a name stays what it is beside the neutral element, and else is lost."""

    def apply(*entries: Entry) -> Entry:
        if not any(entry is None or isinstance(entry, str) for entry in entries):
            return function(*entries) if entries[-1] != 0 or function not in _DIVISIONS else None
        first, *others = entries
        return first if neutral is not None and others == [neutral] else None

    return apply


def _divide(a: float, b: float) -> float:
    """Towards zero for integers, as ONNX has it."""
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return a / b


_DIVISIONS = (_divide, math.fmod, operator.mod)


def _rounded(function: Callable[[float], int]) -> Callable[[Entry], Entry]:
    return lambda entry: function(entry) if isinstance(entry, float) and math.isfinite(entry) else entry


def _equal(a: Entry, b: Entry) -> Entry:
    """A size equals itself, and never a negative number."""
    if isinstance(a, str) and isinstance(b, str):
        return True if a == b else None
    if None in (a, b) or isinstance(a, str) or isinstance(b, str):
        number = b if isinstance(a, str) else a
        return False if isinstance(number, int) and number < 0 else None
    return a == b


_ARITHMETIC: Mapping[str, Callable[..., Entry]] = {
    "Add": _number(operator.add, 0),
    "And": _number(lambda a, b: a and b),
    "Cast": lambda entry: entry,
    "Ceil": _rounded(math.ceil),
    "Div": _number(_divide, 1),
    "Equal": _equal,
    "Floor": _rounded(math.floor),
    "Greater": _number(operator.gt),
    "Identity": lambda entry: entry,
    "Less": _number(operator.lt),
    "Max": _number(lambda *entries: max(entries)),  # of one, too
    "Min": _number(lambda *entries: min(entries)),
    "Mod": _number(operator.mod),
    "Mul": _number(operator.mul, 1),
    "Neg": _number(operator.neg),
    "Not": _number(operator.not_),
    "Or": _number(lambda a, b: a or b),
    "Sub": _number(operator.sub, 0),
    "Where": lambda condition, a, b: None if condition is None else a if condition else b,
}


def _gather(entries: Entries, at: Entries, *_: Any) -> Entries | None:
    n, whole = len(entries), [i for i in at if isinstance(i, int)]
    return [entries[i] for i in whole] if len(whole) == len(at) and all(-n <= i < n for i in whole) else None


def _slice(
    entries: Entries, start: Entries, end: Entries, axes: Entries = (0,), step: Entries = (1,)
) -> Entries | None:
    bounds = [n for n in (*start, *end, *step) if isinstance(n, int)]
    return entries[slice(*bounds)] if len(bounds) == 3 and bounds[2] else None


def _product(entries: Entries, *_: Any) -> Entries:
    numbers = [entry for entry in entries if isinstance(entry, (int, float))]
    return [math.prod(numbers) if len(numbers) == len(entries) else None]


_MOVES: Mapping[str, Callable[..., Entries | None]] = {
    "Concat": lambda *parts: list(itertools.chain(*parts)),
    "Gather": _gather,
    "ReduceProd": _product,
    "Reshape": lambda entries, _: entries,
    "Slice": _slice,
    "Squeeze": lambda entries, *_: entries,
    "Unsqueeze": lambda entries, *_: entries,
}


# ---------------------------------------------------------------- what follows


class _Outer:
    """The names of a graph into which branches are written, listed once."""

    def __init__(self, graph: gs.Graph) -> None:
        self._graph = graph
        self.tried = dict[str, int]()

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return dict(self._graph.tensors())

    @cached_property
    def taken(self) -> set[str]:
        return {*self.tensors, *(node.name for node in self._graph.nodes)}


def _inline_branch(graph: gs.Graph, node: gs.Node, known: Mapping[str, Entries], outer: _Outer) -> bool:
    """An If whose condition is known becomes the nodes of the branch that it takes."""
    condition = _entries(node.inputs[0], known) if node.op == "If" else None
    if not condition or isinstance(condition[0], str) or condition[0] is None:
        return False
    branch: gs.Graph = node.attrs["then_branch" if condition[0] else "else_branch"]
    _rename_apart(branch, outer)
    outputs = list(node.outputs)
    for emptied in (node.inputs, node.outputs, node.attrs):  # so that tidying drops it
        emptied.clear()
    graph.nodes.extend(branch.nodes)
    for inner, output in zip(branch.outputs, outputs, strict=True):
        name = f"{node.name}/{output.name}"
        outer.taken.add(name)
        graph.nodes.append(gs.Node("Identity", name, inputs=[inner], outputs=[output]))
    return True


def _rename_apart(branch: gs.Graph, outer: _Outer) -> None:
    """Give all that the branch makes or holds names that the graph does not have: branches may share them."""
    read = [tensor for node in branch.nodes for tensor in node.inputs] + branch.outputs
    held = [tensor for tensor in read if isinstance(tensor, gs.Constant)]
    made = [tensor for node in branch.nodes for tensor in node.outputs if not tensor.is_empty()]
    tensors = {
        id(tensor): tensor for tensor in (*held, *made) if outer.tensors.get(tensor.name) is not tensor
    }
    for named in (*branch.nodes, *tensors.values()):
        named.name = next_free(named.name or named.op, outer.taken, outer.tried)
        outer.taken.add(named.name)


def _write_shape(node: gs.Node, known: Mapping[str, Entries]) -> bool:
    """The shape of a node's output, where an input of it says so; whether it says more than was known."""
    index = {"Reshape": 1, "Resize": 3}.get(node.op)
    if {"axes", "keep_aspect_ratio_policy"} & node.attrs.keys():  # of Resize, whose sizes are then not y's
        return False
    target = _entries(node.inputs[index], known) if index and len(node.inputs) > index else None
    if not target or not node.outputs:
        return False
    x, y = node.inputs[0], node.outputs[0]
    if node.op == "Reshape" and isinstance(node.inputs[1], gs.Variable):
        constant = _constant_target(target, x.shape)
        if constant is not None:
            node.inputs[1] = gs.Constant(f"{node.inputs[1].name}/{node.name}", np.array(constant, np.int64))
            node.attrs.pop("allowzero", None)  # whose zeros would be no copies
            return True
    old = y.shape if y.shape is not None and len(y.shape) == len(target) else [None] * len(target)
    shape = [
        n if (isinstance(n, str) and not isinstance(m, int)) or (isinstance(n, int) and n > 0) else m
        for n, m in zip(target, old, strict=True)
    ]
    if shape == list(old) and y.shape is not None:
        return False
    y.shape = shape
    return True


def _constant_target(target: Entries, x: Sequence[int | str | None] | None) -> list[int] | None:
    """The same Reshape target without names: 0 copies a dimension of x, and one other may be -1."""
    copied = [
        0 if isinstance(n, str) and x is not None and n in x[i : i + 1] else n for i, n in enumerate(target)
    ]
    numbers = [n if isinstance(n, int) else -1 for n in copied]
    return numbers if numbers.count(-1) <= 1 else None


def _fix_batch(graph: gs.Graph) -> bool:
    """A model that reshapes its free batch to 1, and reads that, runs for one image only: it says so."""
    fixed = {
        node.inputs[0].shape[0]
        for node in graph.nodes
        if node.op == "Reshape" and node.inputs[0].shape and any(y.outputs for y in node.outputs)
        if (_entries(node.inputs[1], {}) or [0])[0] == 1
    }
    pictures = [x for x in graph.inputs if x.shape and isinstance(x.shape[0], str) and x.shape[0] in fixed]
    for x in pictures:
        x.shape = [1, *x.shape[1:]]
    return bool(pictures)
