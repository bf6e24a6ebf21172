"""The front door, as the Contract shows it. Others rely on it: it grows, it does not change."""

import dataclasses
import importlib.metadata
import importlib.resources
import inspect
import re

import pytest

import revgraph

NAMES = ["VARIANTS", "Compiled", "RevgraphError", "Session", "Trace", "compile", "load"]


def parameters(function):
    return inspect.signature(function).parameters


def test_the_names_are_these():
    assert sorted(revgraph.__all__) == sorted(NAMES)
    assert all(hasattr(revgraph, name) for name in NAMES)


def test_the_eight_variants_are_these():
    four = ["identity", "deconvnet", "salinet", "desalinet"]
    assert list(revgraph.VARIANTS) == [*four, *(f"{name}-centre" for name in four)]


def test_compile_takes_the_model_first_and_the_rest_by_name():
    found = parameters(revgraph.compile)
    model, *rest = found.values()
    assert model.name == "model"
    assert model.kind == model.POSITIONAL_OR_KEYWORD
    assert {p.kind for p in rest} == {model.KEYWORD_ONLY}
    assert found["variant"].default is inspect.Parameter.empty
    optional = {name: p.default for name, p in found.items() if name not in ("model", "variant")}
    assert optional.items() >= {"at": None, "input": None, "lrn": None, "target": "portable"}.items()
    assert inspect.Parameter.empty not in optional.values()


def test_load_takes_a_folder_and_perhaps_a_variant():
    folder, variant, *rest = parameters(revgraph.load).values()
    assert (folder.name, variant.name, variant.default) == ("folder", "variant", None)
    assert all(p.default is not inspect.Parameter.empty for p in rest)


def test_session_takes_the_pair_first_and_options_by_name():
    pair, *options, compiling = parameters(revgraph.Session).values()
    assert pair.name == "pair"
    assert compiling.kind == pair.VAR_KEYWORD
    assert {p.kind for p in options} == {pair.KEYWORD_ONLY}
    assert all(p.default is not inspect.Parameter.empty for p in options)


@pytest.mark.parametrize(
    ("method", "names"),
    [("forward", ["self", "x", "others"]), ("reverse", ["self", "trace", "p"])],
)
def test_the_verbs_of_a_session(method, names):
    found = parameters(getattr(revgraph.Session, method))
    assert list(found)[: len(names)] == names
    others = found.get("others")
    assert others is None or others.kind == inspect.Parameter.VAR_KEYWORD


def test_a_compilation_offers_both_graphs_the_fused_one_and_save():
    assert "name" in {field.name for field in dataclasses.fields(revgraph.Compiled)}
    assert {"forward", "reversed"} <= set(dir(revgraph.Compiled))
    save = parameters(revgraph.Compiled.save)
    assert list(save)[:3] == ["self", "folder", "fused"]
    assert save["fused"].default is False
    fused = parameters(revgraph.Compiled.fused)
    assert list(fused) == ["self", "choose"]
    assert fused["choose"].default is save["choose"].default is None


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
