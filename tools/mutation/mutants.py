"""Every mutant of a module: its source with one small change, by mutmut's operators."""

import ast
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import libcst as cst
from libcst.metadata import MetadataWrapper, WhitespaceInclusivePositionProvider
from mutmut.mutation import mutators

Operator = Callable[[Any], Iterable[cst.CSTNode]]


def _marked_string(node: cst.BaseString) -> Iterable[cst.CSTNode]:
    """A string with XX about it; in capitals or not tells no more."""
    return itertools.islice(mutators.operator_string(node), 1)


def _option_removal(call: cst.Call) -> Iterable[cst.CSTNode]:
    """A call without one of its keywords or starred arguments; without another it is an error in any case."""
    for i, arg in enumerate(call.args):
        if arg.keyword is not None or arg.star:
            yield call.with_changes(args=[*call.args[:i], *call.args[i + 1 :]])


OPERATORS: tuple[tuple[type, Operator], ...] = (
    (cst.BaseNumber, mutators.operator_number),
    (cst.BaseString, _marked_string),
    (cst.Name, mutators.operator_name),
    (cst.AugAssign, mutators.operator_augmented_assignment),
    (cst.UnaryOperation, mutators.operator_remove_unary_ops),
    (cst.Call, _option_removal),
    (cst.Call, mutators.operator_symmetric_string_methods_swap),
    (cst.Lambda, mutators.operator_lambda),
    (cst.CSTNode, mutators.operator_keywords),
    (cst.CSTNode, mutators.operator_swap_op),
    (cst.IfExp, mutators.operator_if_exp),
)

UNTOUCHED = (cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom)
"""What says nothing about numbers."""


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        file: Path of the module, from the root of the checkout.
        line: Where the change begins.
        function: Qualified name of the outermost function about it; empty at the top of the module.
        change: The lines taken away and those put in their place, as in a diff.
        source: The whole module, changed.
    """

    file: str
    line: int
    function: str
    change: str
    source: str

    @property
    def key(self) -> str:
        """What stays when lines above move."""
        return f"{self.file} {self.function}\n{self.change}"


def mutants_of(file: str) -> Iterator[Mutant]:
    """All mutants of a module, in its order, each once."""
    original = Path(file).read_text()
    wrapper = MetadataWrapper(cst.parse_module(original), unsafe_skip_copy=True)
    spans = wrapper.resolve(WhitespaceInclusivePositionProvider)
    starts = [0, *itertools.accumulate(map(len, original.splitlines(keepends=True)))]
    seen = {original}
    for node, function in _nodes(wrapper.module, ()):
        for old, new in _changes(node):
            begin, end = (starts[at.line - 1] + at.column for at in (spans[old].start, spans[old].end))
            source = original[:begin] + wrapper.module.code_for_node(new) + original[end:]
            if source not in seen and _compiles(source):
                seen.add(source)
                line, change = _change(original, source)
                yield Mutant(file, line, ".".join(function), change, source)


def _changes(node: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
    """Pairs of a node and what takes its place: the node itself, or its condition."""
    for kind, operator in OPERATORS:
        if isinstance(node, kind):
            yield from ((node, changed) for changed in operator(node))
    if isinstance(node, cst.If | cst.CompIf):  # mutmut forces the conditions of expressions alone
        forced = mutators.operator_if_exp(cast(cst.IfExp, node))
        yield from ((node.test, changed.test) for changed in forced)


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec", ast.PyCF_ONLY_AST)
    except SyntaxError:
        return False
    return True


def _change(before: str, after: str) -> tuple[int, str]:
    """The number of the first line that differs, and the lines that do."""
    old, new = before.splitlines(), after.splitlines()
    first = next(i for i, (a, b) in enumerate(itertools.zip_longest(old, new)) if a != b)
    last = next(i for i, (a, b) in enumerate(zip(old[::-1], new[::-1], strict=False)) if a != b)
    last = min(last, len(old) - first, len(new) - first)
    marked = [f"- {line.strip()}" for line in old[first : len(old) - last]]
    marked += [f"+ {line.strip()}" for line in new[first : len(new) - last]]
    return first + 1, "\n".join(marked)


def _nodes(
    node: cst.CSTNode, scope: tuple[str, ...], held: bool = False
) -> Iterator[tuple[cst.CSTNode, tuple[str, ...]]]:
    """Nodes that may change, each with the name of the function that holds it."""
    if isinstance(node, UNTOUCHED) or _is_text(node):
        return
    if isinstance(node, cst.ClassDef | cst.FunctionDef) and not held:
        scope, held = (*scope, node.name.value), isinstance(node, cst.FunctionDef)
    yield node, scope if held else ()
    for child in node.children:
        yield from _nodes(child, scope, held)


def _is_text(node: cst.CSTNode) -> bool:
    """Whether it is a docstring."""
    return isinstance(node, cst.Expr) and isinstance(node.value, cst.BaseString)
