"""A compilation: the tapped forward graph, the reversed graph, and what ties them together."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.utils

from revgraph import files
from revgraph.errors import RevgraphError
from revgraph.variants import VARIANTS

PREFIX = "revgraph."


@dataclass(frozen=True, slots=True)
class Compiled:
    """A forward graph with its taps, and the reversed graph that reads them.

    Attributes:
        name: The model's name, with which its files begin.
        forward: The model's inputs -> the model's outputs, y, and the taps (N, ...).
        reversed: p (P, *y.shape[1:]) and the taps -> x_hat (P, *x.shape[1:]).
    """

    name: str
    forward: onnx.ModelProto
    reversed: onnx.ModelProto

    @property
    def metadata(self) -> dict[str, str]:
        """What revgraph noted of the compilation, without the prefix `revgraph.`."""
        return _metadata(self.forward)

    @property
    def variant(self) -> str:
        return self.metadata["variant"]

    @property
    def at(self) -> str:
        """The name of y."""
        return self.metadata["at"]

    @property
    def input(self) -> str:
        """The name of x."""
        return self.metadata["input"]

    @property
    def taps(self) -> tuple[str, ...]:
        """The names of the bottleneck's tensors."""
        return tuple(json.loads(self.metadata["taps"]))

    @property
    def beyond_paper(self) -> tuple[str, ...]:
        """The nodes whose activation the paper does not have: reversed by its slope."""
        return tuple(json.loads(self.metadata.get("beyond_paper", "[]")))

    def fused(self) -> onnx.ModelProto:
        """One model, weights shared: the model's inputs and p -> the model's outputs, y and x_hat."""
        model = onnx.ModelProto()
        model.CopyFrom(self.forward)
        graph, other, taps = model.graph, self.reversed.graph, set(self.taps)
        outputs = [value for value in graph.output if value.name not in taps]
        graph.value_info.extend(value for value in graph.output if value.name in taps)
        del graph.output[:]
        graph.output.extend([*outputs, *other.output])
        graph.input.extend(value for value in other.input if value.name == "p")
        stored = {tensor.name for tensor in graph.initializer}
        graph.initializer.extend(tensor for tensor in other.initializer if tensor.name not in stored)
        graph.node.extend(other.node)
        graph.value_info.extend(other.value_info)
        set_metadata(model, {"digest": _digest(model)})
        return model

    def contents(self, folder: str | Path, fused: bool = False) -> tuple[dict[Path, bytes], tuple[Path, ...]]:
        """What to write, forward and reversed or the fused one, and the files of the same name that go."""
        stem = f"{self.name}.{self.variant}"
        forward, reverse, both = (Path(folder) / f"{stem}{end}.onnx" for end in (".forward", ".reversed", ""))
        models = {both: self.fused()} if fused else {forward: self.forward, reverse: self.reversed}
        contents = {path: model.SerializeToString(deterministic=True) for path, model in models.items()}
        return contents, (forward, reverse) if fused else (both,)

    def save(self, folder: str | Path, fused: bool = False) -> tuple[Path, ...]:
        """Write the compilation's files, replacing those of the same model and variant.

        Args:
            folder: Made where it does not exist.
            fused: One file that does both in one run, in place of two.

        Returns:
            The paths written: forward and reversed, or the fused one.

        Raises:
            RevgraphError: They cannot be written; what was there before still is.
        """
        contents, stale = self.contents(folder, fused)
        files.write_all(contents, stale)
        return tuple(contents)


def tie(name: str, forward: onnx.ModelProto, reverse: onnx.ModelProto, metadata: dict[str, str]) -> Compiled:
    """Make a compilation of two graphs by writing what ties them into both."""
    for model in (forward, reverse):
        set_metadata(model, metadata)
    digest = {"digest": _digest(forward, reverse)}
    for model in (forward, reverse):
        set_metadata(model, digest)
    return Compiled(name, forward, reverse)


def set_metadata(model: onnx.ModelProto, metadata: dict[str, str]) -> None:
    """Write entries with revgraph's prefix, replacing those of the same name."""
    entries = {entry.key: entry.value for entry in model.metadata_props}
    entries |= {PREFIX + key: value for key, value in metadata.items()}
    onnx.helper.set_model_props(model, dict(sorted(entries.items())))


def _metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {e.key.removeprefix(PREFIX): e.value for e in model.metadata_props if e.key.startswith(PREFIX)}


def _digest(*models: onnx.ModelProto) -> str:
    """Sha256 over the graphs and what was noted of them, in order."""
    digest = hashlib.sha256()
    for model in models:
        noted = {key: value for key, value in _metadata(model).items() if key != "digest"}
        digest.update(json.dumps(noted, sort_keys=True).encode())
        digest.update(model.graph.SerializeToString(deterministic=True))
    return digest.hexdigest()


# ---------------------------------------------------------------- loading


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
    compilations = _compilations(Path(folder))
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
    name = stem.rpartition(".")[0]
    models = [files.read_model(path)[0] for path in paths]
    for path, model in zip(paths, models, strict=True):
        _check_metadata(path, model)
    return _split(name, paths[0], models[0]) if len(models) == 1 else _join(name, paths, models)


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
    missing = {"variant", "at", "input", "taps", "pair", "digest"} - _metadata(model).keys()
    if missing:
        why = f"its metadata lacks revgraph.{min(missing)}"
        raise RevgraphError(f"'{path}' is not a file of revgraph's", why, "make one with revgraph compile")


def _join(name: str, paths: tuple[Path, ...], models: list[onnx.ModelProto]) -> Compiled:
    forward, reverse = models
    metadata = [_metadata(model) for model in models]
    remedy = "compile the model again"
    if metadata[0]["pair"] != metadata[1]["pair"]:
        what = f"'{paths[0]}' and '{paths[1]}' do not belong together"
        raise RevgraphError(what, "they come from different compilations", remedy)
    if {m["digest"] for m in metadata} != {_digest(forward, reverse)}:
        what = f"'{paths[0]}' and '{paths[1]}' are not as revgraph wrote them"
        raise RevgraphError(what, "their digest differs", remedy)
    return Compiled(name, forward, reverse)


def _split(name: str, path: Path, model: onnx.ModelProto) -> Compiled:
    """Take a fused model apart at its taps."""
    metadata = _metadata(model)
    if metadata["digest"] != _digest(model):
        what = f"'{path}' is not as revgraph wrote it"
        raise RevgraphError(what, "its digest differs", "compile the model again")
    taps = json.loads(metadata["taps"])
    extractor = onnx.utils.Extractor(model)
    inputs = [value.name for value in model.graph.input if value.name != "p"]
    outputs = [value.name for value in model.graph.output if value.name != "x_hat"]
    forward = extractor.extract_model(inputs, [*outputs, *taps])
    reverse = extractor.extract_model(["p", *taps], ["x_hat"])
    for part in (forward, reverse):
        onnx.helper.set_model_props(part, {e.key: e.value for e in model.metadata_props})
    return tie(name, forward, reverse, {})
