"""Which files of a folder are a compilation, and whether they are as revgraph wrote them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx.utils

from revgraph import choice, model_file, weights, writing
from revgraph.errors import RevgraphError
from revgraph.pair import PREFIX, Compiled, digest_of, metadata_of, tie
from revgraph.variants import VARIANTS
from revgraph.weights import LightModel


def load(folder: str | Path, variant: str | None = None) -> Compiled:
    """Read the compilation in a folder.

    Args:
        folder: Where `Compiled.save` wrote it, as two files or a fused one.
        variant: Which one, where there are several.

    Returns:
        The compilation; a fused one is taken apart again.

    Raises:
        RevgraphError: There is none, there are several, or the files do not belong together.
    """
    with writing.settled(Path(folder)):
        name, paths = _found(Path(folder), variant)
        regions = model_file.Regions()
        models = [model_file.read_model(path, regions)[0] for path in paths]
    for path, light in zip(paths, models, strict=True):
        _check_metadata(path, light.model)
    return _split(name, paths[0], models[0]) if len(models) == 1 else _join(name, paths, models)


def _found(folder: Path, variant: str | None) -> tuple[str, tuple[Path, ...]]:
    """The name of the one compilation in a folder, and its files."""
    compilations = _compilations(folder)
    found = {stem: paths for stem, paths in compilations if variant in (None, stem.rpartition(".")[2])}
    if not found:
        wanted = "" if variant is None else f" for {variant}"
        what = f"no compilation{wanted} in '{folder}'"
        raise RevgraphError(what, "no such files", "make one with revgraph compile")
    if len(found) > 1:
        what = f"several compilations in '{folder}'"
        same = len({stem.rpartition(".")[2] for stem in found}) == 1
        remedy = "give each model a folder of its own" if same else "choose one with --variant"
        raise RevgraphError(what, ", ".join(sorted(found)), remedy)
    ((stem, paths),) = found.items()
    return stem.rpartition(".")[0], paths


def load_all(folder: str | Path, variant: str | None = None) -> list[Compiled]:
    """Every compilation in a folder, or the one of that variant.

    Raises:
        RevgraphError: There is none, or there are several of one variant; or as `load` does.
    """
    held = {stem.rpartition(".")[2] for stem, _ in _compilations(Path(folder))}
    found = [name for name in VARIANTS if name in held and variant in (None, name)]
    return [load(folder, name) for name in found] or [
        load(folder, variant)
    ]  # the latter says what is missing


def _compilations(folder: Path) -> Iterable[tuple[str, tuple[Path, ...]]]:
    """`<model>.<variant>` and its files, for every compilation in the folder."""
    if not folder.is_dir():
        what = f"cannot read '{folder}'"
        raise RevgraphError(what, "there is no such folder", "make one with revgraph compile")
    for path in sorted(folder.glob("*.onnx")):
        stem, _, part = path.stem.rpartition(".")
        if part == "forward" and stem.rpartition(".")[2] in VARIANTS:
            yield stem, (path, path.with_name(f"{stem}.reversed.onnx"))
        elif part in VARIANTS and stem:
            yield path.stem, (path,)


def _check_metadata(path: Path, model: onnx.ModelProto) -> None:
    noted = metadata_of(model)
    missing = {"variant", "at", "input", "taps", "pair", "signals", "digest", "bottleneck"} - noted.keys()
    if missing:
        raise _strange(path, f"its metadata lacks revgraph.{min(missing)}")
    for key, kind in NOTED.items():
        if not _holds_texts(noted.get(key, json.dumps(kind())), kind):
            raise _strange(path, f"its revgraph.{key} is not what revgraph notes there")
    if noted["variant"] not in VARIANTS:
        raise _strange(path, f"its variant is '{noted['variant']}'")


NOTED: Mapping[str, type] = {"taps": list, "signals": dict, "scales": dict, "beyond_paper": list}
"""What is noted as JSON; the digest guards against mistakes, not against who can compute one."""


def _holds_texts(noted: str, kind: type) -> bool:
    try:
        found: Any = json.loads(noted)
    except (ValueError, RecursionError):
        return False
    texts = found.values() if isinstance(found, dict) else found
    return type(found) is kind and all(isinstance(text, str) for text in texts)


def _strange(path: Path, why: str) -> RevgraphError:
    return RevgraphError(f"'{path}' is not a file of revgraph's", why, "make one with revgraph compile")


def _checked(path: Path, pair: Compiled) -> Compiled:
    """The compilation, whose graphs have the inputs and outputs that its metadata names."""
    models = [pair.light_forward.model, pair.light_reversed.model]
    if not all(any(not entry.domain for entry in model.opset_import) for model in models):
        raise _strange(path, "it imports no opset of ONNX's own domain")
    forward, reverse = (model.graph for model in models)
    ends = {
        "input": (pair.input, forward.input),
        "at": (pair.at, forward.output),
        **{f"tap {i}": (tap, forward.output) for i, tap in enumerate(pair.taps)},
        "p": ("p", reverse.input),
        "x_hat": ("x_hat", reverse.output),
    }
    for what, (name, values) in ends.items():
        found = next((value for value in values if value.name == name), None)
        if found is None or not found.type.tensor_type.shape.dim:
            raise _strange(path, f"its graphs have no {what} '{name}' of a known rank")
    read = [value.name for value in reverse.input]
    if sorted(read) != sorted({"p", *pair.taps}):
        raise _strange(path, f"its reversed graph reads {', '.join(read)}")
    if not any(pair.at in node.output for node in forward.node):
        raise _strange(path, f"nothing in it computes '{pair.at}'")
    try:
        for light in (pair.light_forward, pair.light_reversed):
            onnx.checker.check_model(light.as_inputs())
    except Exception as error:  # of onnx's C++, which raises what has no common kind
        raise _strange(path, str(error)) from error
    return pair


def _join(name: str, paths: tuple[Path, ...], models: list[LightModel]) -> Compiled:
    forward, reverse = models
    metadata = [metadata_of(light.model) for light in models]
    remedy = "compile the model again"
    if metadata[0]["pair"] != metadata[1]["pair"]:
        what = f"'{paths[0]}' and '{paths[1]}' do not belong together"
        raise RevgraphError(what, "they come from different compilations", remedy)
    if {m["digest"] for m in metadata} != {digest_of(forward, reverse)}:
        what = f"'{paths[0]}' and '{paths[1]}' are not as revgraph wrote them"
        raise RevgraphError(what, "their digest differs", remedy)
    return _checked(paths[0], Compiled(name, forward, reverse))


def _split(name: str, path: Path, light: LightModel) -> Compiled:
    """Take a fused model apart at its taps and at p, which is an input again if it was not."""
    model, metadata = light.model, metadata_of(light.model)
    if metadata["digest"] != digest_of(light):
        what = f"'{path}' is not as revgraph wrote it"
        raise RevgraphError(what, "its digest differs", "compile the model again")
    taps = json.loads(metadata["taps"])
    added = {"p", choice.CLASS} if metadata.get("choose") == choice.CLASS else {"p"}
    inputs = [value.name for value in model.graph.input if value.name not in added]
    outputs = [value.name for value in model.graph.output if value.name != "x_hat"]
    try:
        extractor = onnx.utils.Extractor(model)
        forward = extractor.extract_model(inputs, [*outputs, *taps])
        reverse = extractor.extract_model(["p", *taps], ["x_hat"])
        choice.rows(reverse.graph, "x_hat").CopyFrom(reverse.graph.input[0].type.tensor_type.shape.dim[0])
    except Exception as error:  # whatever onnx's extractor makes of graphs that are not there
        raise _strange(path, f"it cannot be taken apart: {error or type(error).__name__}") from error
    for part in (forward, reverse):
        kept = {e.key: e.value for e in model.metadata_props if e.key != PREFIX + "choose"}
        onnx.helper.set_model_props(part, kept)
    halves = weights.of(forward, light.weights), weights.of(reverse, light.weights)
    return _checked(path, tie(name, *halves, {}))
