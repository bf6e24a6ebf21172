"""Models as the contents of files: one for each, or its weights in a file of their own beside it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from revgraph import model_file, writing
from revgraph.weights import LightModel

ONE_FILE = model_file.MAX_BYTES - 2**20
"""Most bytes of a model with its weights in one file, a little below protobuf's limit."""

PAGE = 4096
"""Weights in a file of their own begin at multiples of this, so that runtimes can map them."""


def stored(models: Mapping[Path, LightModel], data: Path) -> dict[Path, writing.Content]:
    """The contents of models by path; where one would exceed 2 GiB their weights go into `data`, the last."""
    if any(light.nbytes > ONE_FILE for light in models.values()):
        return _apart(models, data)
    return {path: _one_file(light) for path, light in models.items()}


def _one_file(light: LightModel) -> Iterator[bytes]:
    """A file's content, serialised when it is asked for."""
    yield light.whole().SerializeToString(deterministic=True)


def _apart(models: Mapping[Path, LightModel], data: Path) -> dict[Path, writing.Content]:
    """The contents of models that share one file of weights, and of that file, last."""
    held = {name: array for light in models.values() for name, array in light.weights.items()}
    pieces: list[bytes | memoryview] = []
    offsets, end = dict[str, int](), 0
    for name, array in held.items():
        offsets[name], padding = end, -array.nbytes % PAGE
        pieces += [array.data, bytes(padding)]
        end += array.nbytes + padding
    contents: dict[Path, writing.Content] = {
        path: light.stored_in(data.name, offsets).SerializeToString(deterministic=True)
        for path, light in models.items()
    }
    return contents | {data: pieces}
