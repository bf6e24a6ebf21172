"""What an If and a sequence come down to, on the tensors of one run: plain nodes.

In place of an If stand the nodes of the branch that is taken. A sequence is the list of the tensors that it
holds, and leaves nothing behind but their names: splitting into one is a Split, joining one a Concat.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper

from revgraph.errors import RevgraphError
from revgraph.reference.layer import Array, tensor

Tensors: TypeAlias = Mapping[str, Array]
Nodes: TypeAlias = Iterator[onnx.NodeProto]
Part: TypeAlias = list[onnx.NodeProto]


def plain(nodes: Iterable[onnx.NodeProto], tensors: Tensors) -> Nodes:
    """The nodes that run, in order, with no If and no sequence among them.

    Conditions and positions are read when their turn has come: `tensors` may be filled meanwhile.
    """
    run = _Run(tensors, {})
    for node in _taken(nodes, tensors):
        yield from _spelled(node, run)


# ----- If -----


def _taken(nodes: Iterable[onnx.NodeProto], tensors: Tensors) -> Nodes:
    for node in nodes:
        if node.op_type == "If" and _standard(node):
            condition = tensor(tensors, node.input[0]).item()
            yield from _taken(_branch(node, "then_branch" if condition else "else_branch"), tensors)
        else:
            yield node


def _standard(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx")


def _branch(node: onnx.NodeProto, which: str) -> Nodes:
    """The nodes of a branch, its own tensors renamed: those of two branches may be called the same."""
    (graph,) = (attribute.g for attribute in node.attribute if attribute.name == which)
    own = [t.name for t in graph.initializer] + [name for inner in graph.node for name in inner.output]
    made = dict(zip((output.name for output in graph.output), node.output, strict=True))
    names = {name: made.get(name, f"{node.output[0]}>{name}") for name in own if name}
    for initializer in graph.initializer:
        yield helper.make_node("Constant", [], [names[initializer.name]], value=initializer)
    yield from (_renamed(inner, names) for inner in graph.node)
    for output, outer in zip(graph.output, node.output, strict=True):
        name = names.get(output.name, output.name)  # not `outer`, where two outputs are one tensor
        yield from [helper.make_node("Identity", [name], [outer])] if name != outer else []


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """A copy that reads and writes the new names, in its own branches too."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    for graph in (attribute.g for attribute in copy.attribute if attribute.type == attribute.GRAPH):
        inner = [_renamed(inner, names) for inner in graph.node]
        del graph.node[:]
        graph.node.extend(inner)
    return copy


# ----- Sequences -----


@dataclass(frozen=True)
class _Run:
    """The tensors of a run, and the names of those that each sequence holds."""

    tensors: Tensors
    held: dict[str, list[str]]

    def sequence(self, node: onnx.NodeProto) -> list[str]:
        """The names that the sequence of the node's first input holds."""
        if node.input[0] not in self.held:
            what = f"cannot run node {node.name or node.op_type!r}"
            why = f"nothing is known to make the sequence {node.input[0]!r}"
            raise RevgraphError(what, why, "make it in the model, of tensors")
        return self.held[node.input[0]]

    def number(self, node: onnx.NodeProto, position: int, default: int) -> int:
        """The number that an input holds, which may be left out."""
        name = node.input[position] if position < len(node.input) else ""
        return int(tensor(self.tensors, name).item()) if name else default


def _empty(_: onnx.NodeProto, __: _Run) -> tuple[Part, list[str]]:
    return [], []


def _construct(node: onnx.NodeProto, _: _Run) -> tuple[Part, list[str]]:
    return [], list(node.input)


def _insert(node: onnx.NodeProto, run: _Run) -> tuple[Part, list[str]]:
    names = list(run.sequence(node))
    names.insert(run.number(node, 2, len(names)), node.input[1])
    return [], names


def _erase(node: onnx.NodeProto, run: _Run) -> tuple[Part, list[str]]:
    names = list(run.sequence(node))
    names.pop(run.number(node, 1, -1))
    return [], names


def _split(node: onnx.NodeProto, run: _Run) -> tuple[Part, list[str]]:
    """Into the sizes that are given, or into parts of one size, the last what is left."""
    axis = _attribute(node, "axis", 0)
    given = tensor(run.tensors, node.input[1]) if node.input[1:] else np.array(1)
    size = tensor(run.tensors, node.input[0]).shape[axis]
    sizes = given.tolist() if given.ndim else [min(int(given), size - i) for i in range(0, size, int(given))]
    names = [f"{node.output[0]}>{i}" for i in range(len(sizes))]
    # ONNX ignores keepdims where sizes are given. At a scalar 1 onnxruntime does not, as exporters know.
    if _attribute(node, "keepdims", 1) or given.ndim or given > 1:
        return [helper.make_node("Split", node.input[:1], names, axis=axis, split=sizes)], names
    parts = [f"{name}>kept" for name in names]
    pairs = zip(parts, names, strict=True)
    squeezes = [helper.make_node("Squeeze", [part], [name], axes=[axis]) for part, name in pairs]
    return [helper.make_node("Split", node.input[:1], parts, axis=axis, split=sizes), *squeezes], names


def _at(node: onnx.NodeProto, run: _Run) -> Part:
    return [helper.make_node("Identity", [run.sequence(node)[run.number(node, 1, 0)]], node.output)]


def _length(node: onnx.NodeProto, run: _Run) -> Part:
    return [helper.make_node("Constant", [], node.output, value_int=len(run.sequence(node)))]


def _concat(node: onnx.NodeProto, run: _Run) -> Part:
    axis, names = _attribute(node, "axis", 0), run.sequence(node)
    if not _attribute(node, "new_axis", 0):
        return [helper.make_node("Concat", names, node.output, axis=axis)]
    wider = [f"{node.output[0]}>{i}" for i in range(len(names))]
    pairs = zip(names, wider, strict=True)
    unsqueezes = [helper.make_node("Unsqueeze", [name], [wide], axes=[axis]) for name, wide in pairs]
    return [*unsqueezes, helper.make_node("Concat", wider, node.output, axis=axis)]


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


MAKING: Mapping[str, Callable[[onnx.NodeProto, _Run], tuple[Part, list[str]]]] = {
    "SequenceConstruct": _construct,
    "SequenceEmpty": _empty,
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SplitToSequence": _split,
}
READING: Mapping[str, Callable[[onnx.NodeProto, _Run], Part]] = {
    "ConcatFromSequence": _concat,
    "SequenceAt": _at,
    "SequenceLength": _length,
}


def _spelled(node: onnx.NodeProto, run: _Run) -> Part:
    """The node, or what it comes down to if it makes or reads a sequence."""
    if node.op_type == "Identity" and node.input[0] in run.held:
        run.held[node.output[0]] = run.held[node.input[0]]
        return []
    if not _standard(node) or node.op_type not in {*MAKING, *READING}:
        return [node]
    if node.op_type in READING:
        return READING[node.op_type](node, run)
    part, run.held[node.output[0]] = MAKING[node.op_type](node, run)
    return part
