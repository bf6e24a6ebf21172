"""A compilation: the tapped forward graph, the reversed graph, and what ties them together."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.utils

from revgraph import choice, finite, storing, weights, writing
from revgraph.declared import Shape, dtype_of, shape_of
from revgraph.errors import RevgraphError
from revgraph.finite import Count
from revgraph.weights import LightModel

PREFIX = "revgraph."

ENDS = {
    "forward.onnx": "the forward graph with its taps",
    "reversed.onnx": "the reversed graph",
    "onnx": "both in one",
    "weights": "the weights of both",
}
"""What the files of a compilation end in, after the model's name and the variant, and a line on each."""


@dataclass(frozen=True)  # without slots: what is read of the metadata is kept
class Compiled:
    """A forward graph with its taps, and the reversed graph that reads them.

    Attributes:
        name: The model's name, with which its files begin.
        light_forward: `forward` without its large weights, and these.
        light_reversed: `reversed` likewise; what both read is one array in memory.
    """

    name: str
    light_forward: LightModel
    light_reversed: LightModel

    @property
    def forward(self) -> onnx.ModelProto:
        """The model's inputs -> the model's outputs, y, and the taps (N, ...).

        A copy, weights and all: above 2 GiB a message of use to Python, but too large to be serialised.
        """
        return self.light_forward.whole()

    @property
    def reversed(self) -> onnx.ModelProto:
        """p (P, *y.shape[1:]) and the taps -> x_hat (P, *x.shape[1:]); a copy, like `forward`."""
        return self.light_reversed.whole()

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """What revgraph noted of the compilation, without the prefix `revgraph.`."""
        return metadata_of(self.light_forward.model)

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
    def x_shape(self) -> Shape:
        """The shape of x as the model declares it; names or None where it is free."""
        return shape_of(self._declared(self.input))

    @property
    def x_dtype(self) -> np.dtype[Any]:
        """The element type of x."""
        return dtype_of(self._declared(self.input))

    @property
    def y_channels(self) -> int | None:
        """How many y has; None where that is free."""
        return next((n for n in shape_of(self._declared(self.at))[1:2] if isinstance(n, int)), None)

    def _declared(self, name: str) -> onnx.ValueInfoProto:
        graph = self.light_forward.model.graph
        return next(value for value in (*graph.input, *graph.output) if value.name == name)

    @cached_property
    def taps(self) -> tuple[str, ...]:
        """The names of the bottleneck's tensors."""
        return tuple(json.loads(self.metadata["taps"]))

    @cached_property
    def signals(self) -> dict[str, str]:
        """The forward tensors from y back to x, each with the reversed tensor that is its x_hat."""
        return dict(json.loads(self.metadata["signals"]))

    @cached_property
    def scales(self) -> dict[str, str]:
        """Those of them that are stored in float16 divided by a scale for each row, and its name."""
        return dict(json.loads(self.metadata.get("scales", "{}")))

    def rescaled(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Tensors of the reversed graph by name, scales among them: each x_hat times its scale."""
        x_hats = dict(values)
        for name, scale in self.scales.items():
            x_hats[name] = values[name] * values[scale].reshape(-1, *[1] * (values[name].ndim - 1))
        return x_hats

    @cached_property
    def beyond_paper(self) -> tuple[str, ...]:
        """The nodes whose activation the paper does not have: reversed by its slope."""
        return tuple(json.loads(self.metadata.get("beyond_paper", "[]")))

    @cached_property
    def odd_weights(self) -> dict[str, Count]:
        """The weights that hold denormals, or infinities that are no bounds, and how many."""
        noted = json.loads(self.metadata.get("odd_weights", "{}"))
        return {name: Count(**found) for name, found in noted.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of it, a line each."""
        return tuple(self._notes())

    def _notes(self) -> Iterator[str]:
        if nodes := self.beyond_paper:
            said = "activations that the paper does not have are reversed by their slope"
            yield f"{said}: {finite.listed(nodes)}"
        yield from finite.notes(self.odd_weights)

    def fused(self, choose: str | None = None) -> onnx.ModelProto:
        """One model, weights shared: the model's inputs and p -> the model's outputs, y and x_hat.

        Args:
            choose: "max" or "class" puts the choice of p inside, one projection per image, as the neurons
                `max` and `class:c` are defined. There is no input p then; with "class" there is an int64
                `class` (N,), a channel of y for each image, negative ones counting from the end.

        Raises:
            RevgraphError: There is no such choice, or the model leaves no room for it.
        """
        return self.light_fused(choose).whole()

    def light_fused(self, choose: str | None = None) -> LightModel:
        """`fused` without its large weights, and these; it raises the same."""
        if choose not in (None, *choice.CHOICES):
            raise RevgraphError("unknown choice", f"'{choose}'", f"known: {', '.join(choice.CHOICES)}")
        fused, noted = self.fused_from_p(), {"choose": choose or "none"}
        if choose == choice.CLASS:
            fused, name = choice.give_way(fused)
            signals = {name if key == choice.CLASS else key: x_hat for key, x_hat in self.signals.items()}
            noted["signals"] = json.dumps(signals)
        if choose is not None:
            fused = choice.inside(fused, self.at, choose)
        set_metadata(fused.model, noted)
        set_metadata(fused.model, {"digest": digest_of(fused)})
        return fused

    def fused_from_p(self) -> LightModel:
        """Both graphs in one, from p."""
        model = onnx.ModelProto()
        model.CopyFrom(self.light_forward.model)
        graph, other, taps = model.graph, self.light_reversed.model.graph, set(self.taps)
        outputs = [value for value in graph.output if value.name not in taps]
        graph.value_info.extend(value for value in graph.output if value.name in taps)
        del graph.output[:]
        graph.output.extend([*outputs, *other.output])
        graph.input.extend(value for value in other.input if value.name == "p")
        stored = {tensor.name for tensor in graph.initializer}
        graph.initializer.extend(tensor for tensor in other.initializer if tensor.name not in stored)
        graph.node.extend(other.node)
        graph.value_info.extend(other.value_info)
        return weights.of(model, self.light_reversed.weights | self.light_forward.weights)

    def models(
        self, folder: str | Path, fused: bool = False, choose: str | None = None
    ) -> dict[Path, LightModel]:
        """What it is saved as, and where: forward and reversed, or the fused model."""
        if fused:
            return {self._place(folder, "onnx"): self.light_fused(choose)}
        if choose is not None:
            why = "p crosses from one file to the other"
            raise RevgraphError(f"cannot choose {choose} in two files", why, "fuse them into one")
        parts = {"forward.onnx": self.light_forward, "reversed.onnx": self.light_reversed}
        return {self._place(folder, end): light for end, light in parts.items()}

    def contents(
        self, models: Mapping[Path, LightModel]
    ) -> tuple[dict[Path, writing.Content], tuple[Path, ...]]:
        """What to write of `models`, and the files of the same name and variant that go."""
        folder = next(iter(models)).parent
        contents = storing.stored(models, self._place(folder, "weights"))
        places = (self._place(folder, end) for end in ENDS)
        return contents, tuple(path for path in places if path not in contents)

    def about(self, path: Path) -> str:
        """A line on one of its files."""
        return ENDS[path.name.removeprefix(f"{self.name}.{self.variant}.")]

    def _place(self, folder: str | Path, end: str) -> Path:
        return Path(folder) / f"{self.name}.{self.variant}.{end}"

    def save(self, folder: str | Path, fused: bool = False, choose: str | None = None) -> tuple[Path, ...]:
        """Write the compilation's files, replacing those of the same model and variant.

        Args:
            folder: Made where it does not exist.
            fused: One model that does both in one run, in place of two.
            choose: As for `fused`: what it puts inside the one model.

        Returns:
            The paths written: forward and reversed, or the fused one; then, where a file would exceed 2 GiB,
            the one that holds the weights of all.

        Raises:
            RevgraphError: They cannot be written, or hold no such choice; what was there before still is.
        """
        contents, stale = self.contents(self.models(folder, fused, choose))
        writing.write_all(contents, stale)
        return tuple(contents)


def tie(name: str, forward: LightModel, reverse: LightModel, metadata: dict[str, str]) -> Compiled:
    """Make a compilation of two graphs by writing what ties them into both."""
    for light in (forward, reverse):
        set_metadata(light.model, metadata)
    digest = {"digest": digest_of(forward, reverse)}
    for light in (forward, reverse):
        set_metadata(light.model, digest)
    return Compiled(name, forward, reverse)


def set_metadata(model: onnx.ModelProto, metadata: dict[str, str]) -> None:
    """Write entries with revgraph's prefix, replacing those of the same name."""
    entries = {entry.key: entry.value for entry in model.metadata_props}
    entries |= {PREFIX + key: value for key, value in metadata.items()}
    onnx.helper.set_model_props(model, dict(sorted(entries.items())))


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    return {e.key.removeprefix(PREFIX): e.value for e in model.metadata_props if e.key.startswith(PREFIX)}


def digest_of(*models: LightModel) -> str:
    """Sha256 over the graphs, what was noted of them, and their weights, in order."""
    parts: list[bytes | np.ndarray] = []
    for light in models:
        noted = {key: value for key, value in metadata_of(light.model).items() if key != "digest"}
        parts.append(json.dumps(noted, sort_keys=True).encode())
        parts.append(light.model.graph.SerializeToString(deterministic=True))
        parts.extend(light.weights.values())
    return weights.sha256(*parts)
