"""Reading and writing files: nothing outside the model's folder is read, nothing half-written is left."""

import contextlib
import errno
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper

from revgraph.errors import RevgraphError

MAX_BYTES = 2**31 - 1
"""Protobuf's own limit for one message."""


def read_model(path: Path) -> tuple[onnx.ModelProto, str]:
    """Read an ONNX file and the external data beside it.

    Returns:
        The model, and the sha256 of the file as hexadecimal digits.

    Raises:
        RevgraphError: It is missing, a folder, empty, not ONNX, or its data lies outside its folder.
    """
    content = _read(path)
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise _unreadable(path, f"it is not an ONNX file, or cut short ({error})") from error
    if not model.ir_version or not model.graph.node:
        raise _unreadable(path, "it is not an ONNX file, or holds no nodes")
    _load_external(model, path)
    return model, hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise _unreadable(path, "it is a folder")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise _unreadable(
                path, "it is larger than 2 GiB, protobuf's limit", "keep weights as external data"
            )
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise _unreadable(path, "there is no such file") from error
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if not content:
        raise _unreadable(path, "it is empty")
    return content


def _unreadable(path: Path, why: str, remedy: str = "give the path of an .onnx file") -> RevgraphError:
    return RevgraphError(f"cannot read '{path}'", why, remedy)


def _load_external(model: onnx.ModelProto, path: Path) -> None:
    remedy = "keep the data in files beside the model, or save it as one file"
    folder = path.parent.resolve()
    tensors = [t for t in _tensors(model.graph) if external_data_helper.uses_external_data(t)]
    for tensor in tensors:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if Path(location).is_absolute() or not (folder / location).resolve().is_relative_to(folder):
            why = f"the data of '{tensor.name}' lies outside its folder: '{location}'"
            raise _unreadable(path, why, remedy)
    try:
        for tensor in tensors:
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            tensor.ClearField("data_location")
            del tensor.external_data[:]
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise _unreadable(path, f"its external data cannot be read: {error}", remedy) from error


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _tensors(subgraph)


def write_all(contents: Mapping[Path, bytes], stale: tuple[Path, ...] = ()) -> None:
    """Write files beside their places, then move them all in, and remove the stale ones.

    Raises:
        RevgraphError: A file cannot be written; then no file has changed.
    """
    written: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            written[path] = _write_beside(path, content)
        for path, temporary in written.items():
            os.replace(temporary, path)
        for path in stale:
            path.unlink(missing_ok=True)
    except OSError as error:
        for temporary in written.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        where, why = error.filename or next(iter(contents)), error.strerror or str(error)
        raise RevgraphError(f"cannot write '{where}'", why, "choose another place with -o") from error


@contextlib.contextmanager
def staging() -> Iterator[Callable[[Path], Path]]:
    """Files that appear in their places together at the end, or not at all if something fails before.

    Yields:
        A function from a file's place to the path to write it at.
    """
    with tempfile.TemporaryDirectory(prefix="revgraph-") as folder:
        staged: dict[Path, Path] = {}

        def stage(path: Path) -> Path:
            return staged.setdefault(path, Path(folder) / f"{len(staged)}{path.suffix}")

        yield stage
        for path, temporary in staged.items():
            write_all({path: temporary.read_bytes()})


def _write_beside(path: Path, content: bytes) -> Path:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
