"""Reading ONNX files: nothing outside the model's folder is read, and nothing is believed."""

import errno
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import external_data_helper

from revgraph import weights
from revgraph.errors import RevgraphError
from revgraph.reading import read_bytes
from revgraph.weights import LightModel, Weights

MAX_BYTES = 2**31 - 1
"""Protobuf's own limit for one message."""


class Regions:
    """What was read of external data: each region of a file once."""

    def __init__(self) -> None:
        self._held = dict[tuple[Path, int, int], np.ndarray]()
        self._total = Counter[Path]()

    def read(self, file: Path, offset: int, length: int) -> np.ndarray:
        """Uint8; nothing is allocated that the file does not hold, nor more of it than all.

        Raises:
            OSError: It cannot be read.
            ValueError: The file does not hold it, or other regions overlap with it.
        """
        region, size = (file, offset, length), file.stat().st_size
        if region not in self._held:
            if min(offset, length) < 0 or offset + length > size:
                raise ValueError(f"'{file.name}' does not hold {length} bytes from {offset} on")
            if self._total[file] + length > size:
                raise ValueError(f"they overlap with other data in '{file.name}'")
            self._held[region] = np.fromfile(file, np.uint8, length, offset=offset)
            self._total[file] += length
        return self._held[region]


def read_model(path: Path, regions: Regions | None = None) -> tuple[LightModel, str]:
    """Read an ONNX file and the external data beside it.

    Args:
        path: The file.
        regions: External data that other models share; what is read anew is added.

    Returns:
        The model, and the sha256 of the file as hexadecimal digits.

    Raises:
        RevgraphError: It is missing, a folder, empty, not ONNX, or its data lies outside its folder.
    """
    model, sha256 = _parse(path)
    held = _load_external(model, path, regions or Regions())
    return weights.detach(model, held), sha256


def _parse(path: Path) -> tuple[onnx.ModelProto, str]:
    content = _read(path)
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise _unreadable(path, f"it is not an ONNX file, or cut short ({error})") from error
    if not _is_text(model):
        raise _unreadable(path, "a name in it is not UTF-8 text")
    if not model.ir_version or not model.graph.node:
        raise _unreadable(path, "it is not an ONNX file, or holds no nodes")
    return model, hashlib.sha256(content).hexdigest()


def _is_text(message: Message) -> bool:
    """Whether every string of a message is one; protobuf's parser lets other bytes through."""
    waiting: list[Any] = [message]
    try:
        while waiting:
            for field, value in waiting.pop().ListFields():
                values = [value] if isinstance(value, (Message, str, bytes)) else value
                if field.type == FieldDescriptor.TYPE_MESSAGE:
                    waiting.extend(values)
                elif field.type == FieldDescriptor.TYPE_STRING and not all(
                    isinstance(v, str) for v in values
                ):
                    return False
    except UnicodeDecodeError:
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        content = read_bytes(path)
    except FileNotFoundError as error:
        raise _unreadable(path, "there is no such file") from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            why, remedy = "it is larger than 2 GiB, protobuf's limit", "keep weights as external data"
            raise _unreadable(path, why, remedy) from error
        raise _unreadable(path, error.strerror or str(error)) from error
    except ValueError as error:  # a character that no path can have
        raise _unreadable(path, str(error)) from error
    if not content:
        raise _unreadable(path, "it is empty")
    return content


def _unreadable(path: Path, why: str, remedy: str = "give the path of an .onnx file") -> RevgraphError:
    return RevgraphError(f"cannot read '{path}'", why, remedy)


def _load_external(model: onnx.ModelProto, path: Path, regions: Regions) -> Weights:
    """Read external data: the weights, which stay beside the model, and whatever else, which goes into it."""
    held: Weights = {}
    for tensor in filter(external_data_helper.uses_external_data, model.graph.initializer):
        if weights.is_weight(tensor):
            held[tensor.name] = weights.as_array(tensor, _external_data(tensor, path, regions))
            del tensor.external_data[:]
    nodes = (*model.graph.node, *(node for function in model.functions for node in function.node))
    inside = 0
    for tensor in (*_initializers(model.graph), *_attributes(nodes)):
        if not external_data_helper.uses_external_data(tensor) or not tensor.external_data:
            continue  # nothing to read, or a weight read above
        data = _external_data(tensor, path, regions)
        inside += data.nbytes
        if inside > MAX_BYTES:
            raise _unreadable(path, *weights.TOO_LARGE)
        weights.fill(tensor, data)
        del tensor.external_data[:]
    return held


def _external_data(tensor: onnx.TensorProto, path: Path, regions: Regions) -> np.ndarray:
    """The data of one of the model's tensors, uint8."""
    folder, remedy = path.parent.resolve(), "keep the data in files beside the model, or save it as one file"
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    if not _lies_in(folder, location):
        why = f"the data of '{tensor.name}' lies outside its folder: '{location}'"
        raise _unreadable(path, why, remedy)
    try:
        return _region(tensor, (folder / location).resolve(), regions)
    except (OSError, ValueError, OverflowError, MemoryError) as error:
        why = f"the data of '{tensor.name}' cannot be read: {error}"
        raise _unreadable(path, why, remedy) from error


def _region(tensor: onnx.TensorProto, file: Path, regions: Regions) -> np.ndarray:
    """The part of the file that is the tensor's."""
    entries, wanted = external_data_helper.ExternalDataInfo(tensor), weights.expected_bytes(tensor)
    if not file.is_file():
        raise ValueError(f"there is no file '{file.name}'")
    offset = entries.offset or 0
    length = file.stat().st_size - offset if entries.length is None else entries.length
    if wanted not in (None, length):
        raise ValueError(f"it has {length} bytes, and its type and shape ask for {wanted}")
    return regions.read(file, offset, length)


def _lies_in(folder: Path, location: str) -> bool:
    """Whether a location, links followed, is inside the folder."""
    try:
        return (folder / location).resolve().is_relative_to(folder) and not Path(location).is_absolute()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a character that no path can have
        return False


def _initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def _attributes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Every tensor that the nodes hold, those of subgraphs included."""
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for subgraph in (attribute.g, *attribute.graphs):
                yield from (*_initializers(subgraph), *_attributes(subgraph.node))
