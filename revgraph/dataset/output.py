"""The rows of a data set as Parquet files, each of a fixed share of the pictures and whole or not there.

So a run that was killed goes on with the first share that has no file, and ends with the same files.
"""

import contextlib
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from revgraph.dataset import places
from revgraph.errors import RevgraphError

Row = dict[str, Any]

SETTINGS = "_settings.json"
"""What the rows were made by; readers of Parquet pass over names that begin so."""

SHARE = 256
"""How many pictures' rows a file has."""

GROUP = 4 * 2**20
"""Bytes of maps after which the rows so far are written out: large ones take no memory, and no core waits."""

TEXTS = ["path", "neuron", "class", "error"]
"""The columns of which values come again."""


class Share(NamedTuple):
    """Some of the pictures: the number of their file, and their paths in order."""

    number: int
    paths: Sequence[str]


class Output:
    """A folder of rows.

    Args:
        place: The folder; made where it does not exist.
        maps: One of MAPS.
    """

    def __init__(self, place: str, maps: str) -> None:
        self.place, self._schema = place, _schema(maps)
        self._stale = list[str]()
        self._store, self._path = places.located(place)

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Note what the rows depend on, or find that it is the same as before.

        Raises:
            RevgraphError: The folder holds rows of other settings, or other files, or cannot be written.
        """
        asked = json.dumps(settings, indent=1, sort_keys=True)
        there = self.settings()
        self._stale = [name for name in self._names() if name.startswith((f".{SETTINGS}.", ".part-"))]
        if there is None:
            if parts := self._parts():
                why = f"it holds '{min(parts)}' of something else"
                raise RevgraphError(f"cannot write into '{self.place}'", why, "name another folder with -o")
            with self._whole(SETTINGS) as file:
                file.write(asked.encode())
        elif there != asked:
            differ = _differences(there, json.loads(asked))
            why = f"it holds rows of others: {differ}"
            raise RevgraphError(f"cannot go on in '{self.place}'", why, "name another folder with -o")

    def settings(self) -> str | None:
        """What was noted; None where nothing is."""
        pa: Any = places.arrow()
        path = self._inside(SETTINGS)
        with places.trouble(f"cannot read '{self.place}'"):
            if self._store.get_file_info(path).type != pa.fs.FileType.File:
                return None
            with self._store.open_input_file(path) as file:
                return bytes(file.read()).decode(errors="replace")

    def left(self, pictures: Sequence[str]) -> list[Share]:
        """The shares that have no file yet."""
        there = self._parts()
        shares = (Share(i // SHARE, pictures[i : i + SHARE]) for i in range(0, len(pictures), SHARE))
        return [share for share in shares if _name(share.number) not in there]

    @contextlib.contextmanager
    def part(self, number: int) -> Iterator[Callable[[Sequence[Row]], None]]:
        """Write a share's rows: the file appears at the end, or not at all.

        Yields:
            What adds rows to it.

        Raises:
            RevgraphError: They cannot be written.
        """
        pa: Any = places.arrow()
        with (
            self._whole(_name(number)) as file,
            pa.parquet.ParquetWriter(file, self._schema, compression="zstd", use_dictionary=TEXTS) as writer,
        ):
            waiting: list[Row] = []

            def flush() -> None:
                columns = [_column([row.get(f.name) for row in waiting], f.type) for f in self._schema]
                writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
                waiting.clear()

            def add(rows: Sequence[Row]) -> None:
                waiting.extend(rows)
                if sum(map(_map_bytes, waiting)) > GROUP:
                    flush()

            yield add
            flush()

    def finish(self) -> int:
        """Remove what earlier runs left half-written, once all rows are there.

        Returns:
            How many rows have an error.
        """
        pa: Any = places.arrow()
        with places.trouble(f"cannot read '{self.place}'"):
            for name in set(self._stale) & set(self._names()):
                self._store.delete_file(self._inside(name))
            paths = [self._inside(name) for name in sorted(self._parts())]
            rows = pa.dataset.dataset(paths, self._schema, filesystem=self._store, format="parquet")
            return int(rows.count_rows(filter=pa.dataset.field("error").is_valid()))

    @contextlib.contextmanager
    def _whole(self, name: str) -> Iterator[Any]:
        """A file that is written beside its place and then moved there."""
        beside = self._inside(f".{name}.{secrets.token_hex(4)}")
        with places.trouble(f"cannot write '{places.inside(self.place, name)}'"):
            self._store.create_dir(self._path, recursive=True)
            try:
                with self._store.open_output_stream(beside) as file:
                    yield file
                self._store.move(beside, self._inside(name))
            except BaseException:
                with contextlib.suppress(OSError):
                    self._store.delete_file(beside)
                raise

    def _parts(self) -> set[str]:
        """The names of the files of rows that are there."""
        return {name for name in self._names() if name.endswith(".parquet") and not name.startswith(".")}

    def _names(self) -> list[str]:
        pa: Any = places.arrow()
        selector = pa.fs.FileSelector(self._path, allow_not_found=True)
        with places.trouble(f"cannot read '{self.place}'"):
            return [info.base_name for info in self._store.get_file_info(selector)]

    def _inside(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"


def _map_bytes(row: Row) -> int:
    return memoryview(row.get("map", b"")).nbytes


def _name(number: int) -> str:
    return f"part-{number:06}.parquet"


def listing(pictures: Sequence[str]) -> str:
    """A digest of the paths, in order."""
    digest = hashlib.sha256()
    for path in pictures:
        digest.update(places.shown(path).encode() + b"\0")
    return digest.hexdigest()


def _differences(there: str, asked: Mapping[str, Any]) -> str:
    """The names of the settings that are not the same."""
    try:
        was = dict(json.loads(there))
    except (ValueError, TypeError):
        return f"its {SETTINGS} is not revgraph's"
    return ", ".join(sorted(key for key in was | dict(asked) if was.get(key) != asked.get(key)))


def _schema(maps: str) -> Any:
    """The columns, as pyarrow's."""
    pa: Any = places.arrow()
    kinds = {"png": {"map": pa.binary()}, "float16": {"map": pa.list_(pa.list_(pa.float16()))}}
    return pa.schema(
        {
            "path": pa.string(),
            "neuron": pa.string(),
            "channel": pa.int32(),
            "position": pa.list_(pa.int32()),
            "class": pa.string(),
            "score": pa.float32(),
            "probability": pa.float32(),
            "error": pa.string(),
            "x_hat_min": pa.float32(),
            "x_hat_max": pa.float32(),
            "x_hat_norm": pa.float32(),
            "saliency_mean": pa.float32(),
            "saliency_max": pa.float32(),
            "saliency_row": pa.float32(),
            "saliency_column": pa.float32(),
            **kinds.get(maps, {}),
        }
    )


def _column(values: Sequence[Any], kind: Any) -> Any:
    """Values, some of them None, as pyarrow's array."""
    pa: Any = places.arrow()
    known = [value for value in values if value is not None]
    if not known or not isinstance(known[0], np.ndarray):
        return pa.array(values, kind)
    height, width = known[0].shape  # number by number takes ten times as long
    numbers = pa.array(np.concatenate([value.ravel() for value in known]))
    lines = pa.ListArray.from_arrays(np.arange(0, len(numbers) + 1, width, dtype=np.int32), numbers)
    missing = [value is None for value in values]
    ends = np.cumsum([0, *(0 if none else height for none in missing)], dtype=np.int32)
    return pa.ListArray.from_arrays(ends, lines, mask=pa.array(missing))
