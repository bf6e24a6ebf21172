"""What the forward network makes of each crop: computed once by revgraph's compilation, then kept on disk."""

import json
import math
import shutil
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import revgraph
from revgraph.pair import Compiled

SHAPES = "shapes.json"

BATCH = 64
"""So many pictures are run at once."""


class Kept:
    """x, y and the bottleneck of a part's crops, row by row, in a folder.

    Masks are kept as bits, and switches, which are positions in a plane, as int32.
    """

    def __init__(self, folder: Path) -> None:
        self._shapes: dict[str, list[int]] = json.loads((folder / SHAPES).read_text())
        self._arrays = {
            name: np.load(folder / f"{i}.npy", mmap_mode="r") for i, name in enumerate(self._shapes)
        }

    def __len__(self) -> int:
        return len(self._arrays["x"])

    def read(self, rows: Any, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Those rows of x, y and the taps, by name, as the forward graph gave them."""
        return {name: self._unpacked(name, self._arrays[name][rows]) for name in names}

    def _unpacked(self, name: str, packed: np.ndarray) -> np.ndarray:
        shape = self._shapes[name]
        if packed.shape[1:] != tuple(shape):
            bits = np.unpackbits(packed, axis=1, count=math.prod(shape))
            return bits.reshape(-1, *shape).view(bool)
        return packed if packed.dtype.kind == "f" else packed.astype(np.int64)


def keep(folder: Path, pair: Compiled, inputs: Iterable[np.ndarray], count: int) -> Kept:
    """What a forward graph makes of its inputs, unless the folder has it already.

    Args:
        folder: It is there only once it is complete.
        pair: The compilation.
        inputs: Each x, (1, C, H, W); taken only where there is need.
        count: How many.
    """
    if not folder.is_dir():
        beside = folder.with_name(folder.name + ".part")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        session = revgraph.Session(pair)
        arrays: dict[str, np.ndarray] = {}
        shapes: dict[str, Sequence[int]] = {}
        rows, done = iter(inputs), 0
        while batch := list(islice(rows, BATCH)):
            x = np.concatenate(batch)
            trace = session.forward(x)
            taps = {name: tap.numpy() for name, tap in trace.taps.items()}
            for name, values in {"x": x, "y": trace.y, **taps}.items():
                packed = _packed(values)
                if name not in arrays:
                    place, shape = beside / f"{len(arrays)}.npy", (count, *packed.shape[1:])
                    arrays[name] = np.lib.format.open_memmap(place, "w+", packed.dtype, shape)
                    shapes[name] = values.shape[1:]
                arrays[name][done : done + len(x)] = packed
            done += len(x)
        for array in arrays.values():
            array.flush()
        (beside / SHAPES).write_text(json.dumps(shapes))
        beside.rename(folder)
    return Kept(folder)


def _packed(values: np.ndarray) -> np.ndarray:
    if values.dtype == bool:
        return np.packbits(values.reshape(len(values), -1), axis=1)
    return values.astype(np.int32) if values.dtype == np.int64 else values
