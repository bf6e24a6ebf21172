"""The front door, as the Contract shows it. Others rely on it: it grows, it does not change.

What follows are declarations alone: names, parameters, defaults and types have to be the front door's.
"""

import dataclasses
import importlib.metadata
import importlib.resources
import inspect
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import cnn
from PIL import Image

import revgraph
from revgraph import recipe, reference, zoo
from revgraph.capture import Results
from revgraph.finite import Count
from revgraph.reference.layer import Array
from revgraph.rules.rule import Rule
from revgraph.weights import LightModel

NAMES = ["VARIANTS", "Compiled", "RevgraphError", "Session", "Trace", "compile", "load"]

# ----- Functions -----


class Front:
    @staticmethod
    def compile(
        model: str | Path | onnx.ModelProto,
        *,
        variant: str,
        at: str | None = None,
        input: str | None = None,
        lrn: str | None = None,
        target: str = "portable",
        precision: str = "fp32",
        bottleneck: str = "plain",
        fully_convolutional: bool = False,
    ) -> revgraph.Compiled: ...

    @staticmethod
    def load(folder: str | Path, variant: str | None = None) -> revgraph.Compiled: ...


class Reference:
    @staticmethod
    def forward(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]: ...

    @staticmethod
    def recognised(
        model: onnx.ModelProto,
        at: str | None = None,
        tensors: Mapping[str, Array] | None = None,
    ) -> list[onnx.NodeProto]: ...

    @staticmethod
    def reverse(
        model: onnx.ModelProto,
        tensors: Mapping[str, Array],
        *,
        variant: str,
        at: str,
        to: str,
        p: Array,
        lrn: str | None = None,
    ) -> dict[str, Array]: ...

    @staticmethod
    def reverse_layers(
        model: onnx.ModelProto,
        tensors: Mapping[str, Array],
        y_hats: Mapping[str, Array],
        *,
        variant: str,
        at: str,
        to: str,
        lrn: str | None = None,
    ) -> dict[str, Array]: ...


class Recipes:  # these three as far as README.md's session calls them
    @staticmethod
    def load(name_or_file: str) -> recipe.Recipe: ...


class Recipe:
    def feed(self, picture: Image.Image, size: tuple[int, int]) -> Array: ...


class Zoo:
    @staticmethod
    def model_path(recipe: recipe.Recipe) -> Path: ...

    @staticmethod
    def sample(name: str) -> Image.Image: ...


# ----- Classes -----


@dataclasses.dataclass(frozen=True)
class Compiled:
    name: str
    light_forward: LightModel
    light_reversed: LightModel

    @property
    def at(self) -> str: ...

    @property
    def beyond_paper(self) -> tuple[str, ...]: ...

    @property
    def forward(self) -> onnx.ModelProto: ...

    @property
    def input(self) -> str: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def odd_weights(self) -> dict[str, Count]: ...

    @property
    def reversed(self) -> onnx.ModelProto: ...

    @property
    def signals(self) -> dict[str, str]: ...

    @property
    def taps(self) -> tuple[str, ...]: ...

    @property
    def variant(self) -> str: ...

    @property
    def x_dtype(self) -> np.dtype[Any]: ...

    @property
    def x_shape(self) -> tuple[int | str | None, ...]: ...

    @property
    def y_channels(self) -> int | None: ...

    def fused(self, choose: str | None = None) -> onnx.ModelProto: ...

    def save(
        self, folder: str | Path, fused: bool = False, choose: str | None = None
    ) -> tuple[Path, ...]: ...


class Session:
    def __init__(
        self,
        pair: revgraph.Compiled | str | Path | onnx.ModelProto,
        *,
        threads: int = 0,
        device: str = "cpu",
        cuda_graph: bool = True,
        check: bool = True,
        configure: Callable[[Any], object] | None = None,
        **options: Any,
    ) -> None: ...

    @property
    def x_dtype(self) -> np.dtype[Any]: ...

    @property
    def x_shape(self) -> tuple[int | str | None, ...]: ...

    def forward(self, x: Any, /, **others: Any) -> revgraph.Trace: ...

    def layers(
        self, x: np.ndarray, p: np.ndarray, **others: np.ndarray
    ) -> tuple[list[tuple[str, np.ndarray]], list[tuple[str, np.ndarray]]]: ...

    def reverse(self, trace: revgraph.Trace, p: Any) -> np.ndarray: ...

    def reverse_on_device(self, trace: revgraph.Trace, p: Any) -> Any: ...

    def vanishes_after(self, trace: revgraph.Trace, p: np.ndarray) -> str | None: ...


@dataclasses.dataclass(frozen=True)
class Trace:
    y: np.ndarray
    outputs: Mapping[str, np.ndarray]
    taps: Mapping[str, Any]
    lease: Results | None = None


class RevgraphError(Exception):
    def __init__(self, what: str, why: str, remedy: str) -> None: ...


CLASSES = [Compiled, Session, Trace, RevgraphError]

AMONG_ITSELF = {
    "Compiled": {"about", "contents", "fused_from_p", "light_fused", "models", "rescaled", "scales"}
}
"""For revgraph's own modules, and may change; nothing else goes undeclared."""

# ----- Tests -----


def functions(declared: type) -> dict[str, Callable[..., Any]]:
    return {name: getattr(declared, name) for name in vars(declared) if not name.startswith("_")}


def members(cls: type) -> dict[str, Any]:
    """A class's public properties and methods; what a dataclass holds its signature tells."""
    inherited = set(dir(Exception)) if issubclass(cls, Exception) else set()
    names = {name for name in dir(cls) if not name.startswith("_")} - inherited
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    return {name: kind(inspect.getattr_static(cls, name)) for name in names - fields}


def kind(member: object) -> tuple[bool, inspect.Signature]:
    """Whether it is read as an attribute, and what it takes and gives."""
    if isinstance(member, property):
        return True, inspect.signature(member.fget)
    if isinstance(member, cached_property):
        return True, inspect.signature(member.func)
    return False, inspect.signature(member)


def test_the_names_are_these():
    assert sorted(revgraph.__all__) == sorted(NAMES)
    assert all(hasattr(revgraph, name) for name in NAMES)
    assert sorted(reference.__all__) == sorted(functions(Reference))


def test_the_eight_variants_are_these():
    four = ["identity", "deconvnet", "salinet", "desalinet"]
    assert list(revgraph.VARIANTS) == [*four, *(f"{name}-centre" for name in four)]
    assert all(isinstance(rule, Rule) for variant in revgraph.VARIANTS.values() for rule in variant.values())


@pytest.mark.parametrize(
    ("place", "declared"),
    [
        (revgraph, Front),
        (reference, Reference),
        (recipe, Recipes),
        (zoo, Zoo),
        (recipe.Recipe, Recipe),
    ],
    ids=lambda of: of.__name__,
)
def test_functions_are_as_declared(place, declared):
    wanted = {name: inspect.signature(function) for name, function in functions(declared).items()}
    assert {name: inspect.signature(getattr(place, name)) for name in wanted} == wanted


@pytest.mark.parametrize("declared", CLASSES, ids=lambda cls: cls.__name__)
def test_classes_are_as_declared(declared):
    cls = getattr(revgraph, declared.__name__)
    assert inspect.signature(cls) == inspect.signature(declared)
    found = members(cls)
    among_itself = AMONG_ITSELF.get(declared.__name__, set())
    assert among_itself <= found.keys()
    assert {name: kind for name, kind in found.items() if name not in among_itself} == members(declared)


def test_a_session_knows_its_pair():
    pair = revgraph.compile(cnn(), variant="salinet")
    session = revgraph.Session(pair)
    assert [name for name in vars(session) if not name.startswith("_")] == ["pair"]
    assert session.pair is pair


def test_an_error_has_its_parts():
    error = revgraph.RevgraphError("what", "why", "remedy")
    assert vars(error) == {"what": "what", "why": "why", "remedy": "remedy"}


def test_results_are_frozen():
    compiled = revgraph.Compiled("name", None, None)
    with pytest.raises(AttributeError):
        compiled.name = "other"


def test_types_are_shipped():
    assert importlib.resources.files("revgraph").joinpath("py.typed").is_file()


def test_the_version_is_that_of_the_distribution():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\w*)", revgraph.__version__)
    assert importlib.metadata.version("revgraph") == revgraph.__version__


def test_the_front_door_is_documented():
    assert all(inspect.getdoc(getattr(revgraph, name)) for name in NAMES if name != "VARIANTS")
