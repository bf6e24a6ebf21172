"""Imports run one way. A module that is not in the table below belongs in it first."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "revgraph"
FILES = sorted(PACKAGE.rglob("*.py"))

# fmt: off
LEVELS = (  # from the top; a module imports those below it
    ("cli",),
    ("demo", "doctor", "paper", "serving"),
    ("dataset",),
    ("verify", "compare", "explain", "draw"),
    ("inspect",),
    ("session", "feeding"),
    ("capture",),
    ("compiler", "loading", "runtime", "union"),
    ("pair",),
    ("storing",),
    ("choice",),
    ("lower",),
    ("simplify", "scaling", "network"),
    ("reverse", "canonical"),
    ("variants", "layer", "odd_weights"),
    ("rules",),
    ("op",),
    ("flow",),
    ("window", "graph"),
    ("zoo",),
    ("picture_files", "panels"),
    ("picture", "recipe", "neuron"),
    ("packages",),
    ("model_file", "writing"),
    ("finite",),
    ("cache", "declared", "weights", "errors", "names", "parallel", "reading", "version"),
)
BESIDE = {  # what sits beside that order: all that each may import
    "finite": {"errors"},
    "neuron": {"errors", "finite", "reading"},
    "picture_files": {"errors", "neuron", "picture"},
    "reading": set(),
    "recipe": {"errors", "packages", "reading"},
    "packages": {"errors"},
    "picture": {"errors", "finite", "reading"},
    "panels": {"picture"},
    "zoo": {"cache", "errors", "packages", "picture", "recipe", "writing"},
    "model_file": {"errors", "reading", "weights"},
    "writing": {"errors"},
    "declared": set(),
    "weights": set(),
    "errors": set(),
    "__main__": {"cli"},
}
WITHIN = {  # on one level, or within one package, and still one way
    "cli.command": set(),
    "cli.given": {"cli.command"},
    "cli.options": set(),
    "cli.printing": {"cli.command"},
    "rules.rule": set(),
    "rules.along": {"rules.rule"},
    "rules.axes": {"rules.rule"},
    "rules.sizes": {"rules.rule"},
    "rules.affine": {"rules.axes", "rules.rule", "rules.sizes"},
    "rules.average": {"rules.axes", "rules.rule", "rules.sizes"},
    "rules.crop": {"rules.along", "rules.rule", "rules.sizes"},
    "rules.maxpool": {"rules.along", "rules.axes", "rules.rule", "rules.sizes"},
    "rules.norm": {"rules.axes", "rules.rule"},
    "rules.product": {"rules.axes", "rules.rule"},
    "rules.relu": {"rules.rule"},
    "rules.resize": {"rules.along", "rules.rule", "rules.sizes"},
    "rules.wiring": {"rules.along", "rules.axes", "rules.rule", "rules.sizes"},
    "rules.activation": {"rules.relu", "rules.rule"},
    "verify.run": set(),
    "lower.target": set(),
    "lower.masks": {"lower.target"},
    "lower.switches": {"lower.target"},
    "lower.bits": set(),
    "serving.web": {"demo", "serving"},
    "lower.blocks": set(),
    "lower.packed": {"lower.bits", "lower.portable", "lower.target"},
}
# fmt: on
RANK = {name: -row for row, names in enumerate(LEVELS) for name in names} | {"reference": -4.5}


def module(path: Path) -> str:
    """`rules.relu` for revgraph/rules/relu.py; the empty string for revgraph/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path, outside_functions: bool = False) -> Iterator[str]:
    """Every module that a file imports, with its package's name in front."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield from (_target(node.module, alias.name) for alias in node.names)
        if not (outside_functions and isinstance(node, ast.FunctionDef)):
            waiting.extend(ast.iter_child_nodes(node))


def _target(package: str, name: str) -> str:
    """`from revgraph.rules import relu` imports a module, `from revgraph.graph import gs` a name of one."""
    inner = package.partition(".")[2].split(".") if "." in package else []
    here = PACKAGE.joinpath(*inner)
    is_module = (here / f"{name}.py").is_file() or (here / name / "__init__.py").is_file()
    return f"{package}.{name}" if package.partition(".")[0] == "revgraph" and is_module else package


def own(path: Path) -> list[str]:
    """The modules of revgraph that a file imports, without the package's name."""
    return [name.removeprefix("revgraph.") for name in imports(path) if name.startswith("revgraph.")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: module(path) or "revgraph")
def test_no_arrow_points_back(path):
    name = module(path)
    for target in own(path) if name else ():
        head, other = name.partition(".")[0], target.partition(".")[0]
        if head == "reference":
            assert target == "errors" or other == head, f"{name} is the oracle and imports {target}"
            continue
        if name in BESIDE:
            assert target in BESIDE[name], f"{name} sits beside and imports {target}"
            continue
        assert {head, other} <= RANK.keys(), f"place {head} and {other} in LEVELS"
        if head == other:
            assert target in WITHIN.get(name, {target}), f"{name} imports {target}"
        elif RANK[head] == RANK[other]:
            assert target in WITHIN.get(name, ()), f"{name} imports {target}, on its own level"
        else:
            assert RANK[head] > RANK[other], f"{name} imports {target}, which is above it"


@pytest.mark.parametrize("name", [*BESIDE, *WITHIN])
def test_no_allowance_is_stale(name):
    (path,) = (path for path in FILES if module(path) == name)
    assert BESIDE.get(name, set()) | WITHIN.get(name, set()) <= set(own(path))


def test_the_table_has_no_cycle():
    below = {path: set(own(path)) for path in FILES}
    names = {module(path): path for path in FILES}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " > ".join((*trail, name))
        if name in done or name not in names:
            return
        for target in below[names[name]]:
            visit(target, (*trail, name))
        done.add(name)

    for name in names:
        visit(name, ())


@pytest.mark.parametrize("path", FILES, ids=lambda path: module(path) or "revgraph")
def test_each_foreign_library_has_its_place(path):
    name, found = module(path), {target.partition(".")[0] for target in imports(path)}
    assert not found & {"tests", "tools", "networks", "conftest", "pytest"}
    assert ("onnx_graphsurgeon" in found) == (name == "graph")
    assert "torch" not in found
    assert "tensorflow" not in found
    assert ("onnxruntime" in found) == (name == "runtime")
    assert not any(t.startswith("onnxruntime") for t in imports(path, outside_functions=True))


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_is_quiet_and_brings_no_runtime():
    heavy = "{'onnxruntime', 'PIL', 'torch', 'tensorflow', 'tqdm', 'tabulate', 'skimage', 'scipy'}"
    done = run(f"import revgraph, sys; print(sorted({heavy} & sys.modules.keys()))")
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_oracle_does_not_import_what_it_judges():
    done = run(
        "import sys; import revgraph.errors; before = set(sys.modules); import revgraph.reference;"
        "print(sorted(n for n in sys.modules.keys() - before if n.startswith('revgraph')))"
    )
    brought = ast.literal_eval(done.stdout)
    assert brought
    assert all(name.startswith("revgraph.reference") for name in brought)


def test_importing_leaves_the_root_logger_and_the_warnings_alone():
    done = run(
        "import logging, sys, warnings; before = logging.root.handlers[:], logging.root.level;"
        "out = sys.stdout; import revgraph;"
        "assert before == (logging.root.handlers, logging.root.level); assert out is sys.stdout"
    )
    assert done.stderr == ""
