"""The given network: read from where it is, made canonical, and what of it is to be reversed."""

import re
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import EncodeError

from revgraph import canonical, layer, model_file, weights
from revgraph.canonical import convolutional
from revgraph.errors import RevgraphError
from revgraph.graph import gs, tensor_names
from revgraph.weights import LightModel


@dataclass(frozen=True, slots=True)
class Source:
    """What is compiled, as it was given.

    Attributes:
        light: The model.
        name: The file's, without its suffix, else the graph's own.
        sha256: Of the file, else of what the model holds.
    """

    light: LightModel
    name: str
    sha256: str


def read(model: str | Path | onnx.ModelProto) -> Source:
    """An ONNX file, or the model itself.

    Raises:
        RevgraphError: It cannot be read.
    """
    if isinstance(model, onnx.ModelProto):
        try:
            light = weights.detach(model)
            content = light.model.SerializeToString(deterministic=True)
        except EncodeError as error:
            raise RevgraphError("cannot take this model", *weights.TOO_LARGE) from error
        name = re.sub(r"[^\w-]+", "_", model.graph.name).strip("_") or "model"
        return Source(light, name, weights.sha256(content, *light.weights.values()))
    light, sha256 = model_file.read_model(Path(model))
    return Source(light, Path(model).stem, sha256)


def locate(
    source: Source, at: str | None, input: str | None, fully_convolutional: bool = False
) -> tuple[gs.Graph, gs.Variable, gs.Variable]:
    """The canonical graph, and in it x and y; arguments and errors as for `compile`."""
    graph = canonical.canonicalise(source.light)
    if fully_convolutional:
        graph = convolutional.fully_convolutional(graph)
    y = layer.find_layer(graph, at, set(tensor_names(source.light.model)))
    return graph, layer.find_input(graph, y, input), y
