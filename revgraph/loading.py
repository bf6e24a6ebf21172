"""Which files of a folder are a compilation, and whether they are as revgraph wrote them."""

import json
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnx.utils

from revgraph import choice, files, weights, writing
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
        regions: files.Regions = {}
        models = [files.read_model(path, regions)[0] for path in paths]
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
    missing = {"variant", "at", "input", "taps", "pair", "signals", "digest"} - metadata_of(model).keys()
    if missing:
        why = f"its metadata lacks revgraph.{min(missing)}"
        raise RevgraphError(f"'{path}' is not a file of revgraph's", why, "make one with revgraph compile")


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
    return Compiled(name, forward, reverse)


def _split(name: str, path: Path, light: LightModel) -> Compiled:
    """Take a fused model apart at its taps and at p, which is an input again if it was not."""
    model, metadata = light.model, metadata_of(light.model)
    if metadata["digest"] != digest_of(light):
        what = f"'{path}' is not as revgraph wrote it"
        raise RevgraphError(what, "its digest differs", "compile the model again")
    taps = json.loads(metadata["taps"])
    extractor = onnx.utils.Extractor(model)
    added = {"p", choice.CLASS} if metadata.get("choose") == choice.CLASS else {"p"}
    inputs = [value.name for value in model.graph.input if value.name not in added]
    outputs = [value.name for value in model.graph.output if value.name != "x_hat"]
    forward = extractor.extract_model(inputs, [*outputs, *taps])
    reverse = extractor.extract_model(["p", *taps], ["x_hat"])
    choice.rows(reverse.graph, "x_hat").CopyFrom(reverse.graph.input[0].type.tensor_type.shape.dim[0])
    for part in (forward, reverse):
        kept = {e.key: e.value for e in model.metadata_props if e.key != PREFIX + "choose"}
        onnx.helper.set_model_props(part, kept)
    return tie(name, weights.of(forward, light.weights), weights.of(reverse, light.weights), {})
