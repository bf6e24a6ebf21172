"""The rows of a data set as Parquet files, each of a fixed share of the pictures and whole or not there.

So a run that was killed goes on with the first share that has no file, and ends with the same files.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from revgraph import files
from revgraph.errors import RevgraphError, missing_extra

SETTINGS = "_settings.json"
"""What the rows were made by; readers of Parquet pass over names that begin so."""

MAPS = ("none", "png", "float16")
"""How x_hat itself is kept."""


def schema(maps: str) -> Any:
    """The columns, as pyarrow's.

    Raises:
        RevgraphError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise missing_extra("cannot write a data set", "pyarrow", "batch") from error
    kinds = {"png": [("map", pa.binary())], "float16": [("map", pa.list_(pa.float16())), ("shape", pa.list_(pa.int32()))]}
    return pa.schema(
        [
            ("path", pa.string()),
            ("neuron", pa.string()),
            ("channel", pa.int32()),
            ("position", pa.list_(pa.int32())),
            ("class", pa.string()),
            ("score", pa.float32()),
            ("probability", pa.float32()),
            ("error", pa.string()),
            ("x_hat_min", pa.float32()),
            ("x_hat_max", pa.float32()),
            ("x_hat_norm", pa.float32()),
            ("saliency_mean", pa.float32()),
            ("saliency_max", pa.float32()),
            ("saliency_row", pa.float32()),
            ("saliency_column", pa.float32()),
            *kinds.get(maps, []),
        ]
    )


class Output:
    """A folder of rows.

    Args:
        folder: Made where it does not exist.
        pictures: All of them, in order.
        settings: What the rows depend on beside them.
        share: How many pictures a file has.
        maps: One of MAPS.

    Attributes:
        left: The shares that have no file yet: their numbers, and their pictures.

    Raises:
        RevgraphError: The folder holds rows of other settings or pictures, or cannot be written.
    """

    def __init__(
        self, folder: Path, pictures: Sequence[str], settings: Mapping[str, Any], share: int, maps: str
    ) -> None:
        self._folder, self._schema = folder, schema(maps)
        listing = hashlib.sha256("\0".join(pictures).encode(errors="surrogateescape")).hexdigest()
        asked = {"pictures": listing, "count": len(pictures), "share": share, "maps": maps, **settings}
        self._agree(json.dumps(asked, indent=1, sort_keys=True))
        shares = [(i, pictures[start : start + share]) for i, start in enumerate(range(0, len(pictures), share))]
        self.left = [(i, mine) for i, mine in shares if not self._path(i).exists()]

    def _agree(self, asked: str) -> None:
        path = self._folder / SETTINGS
        if not path.exists():
            if any(self._folder.glob("*.parquet")):
                raise RevgraphError(f"cannot write into '{self._folder}'", "it holds other files", "name another")
            files.write_all({path: asked.encode()})
        elif (there := path.read_text(encoding="utf-8")) != asked:
            was, now = json.loads(there), json.loads(asked)
            differ = ", ".join(sorted(key for key in was | now if was.get(key) != now.get(key)))
            why = f"it holds rows of others: {differ}"
            raise RevgraphError(f"cannot go on in '{self._folder}'", why, "name another folder with -o")

    def _path(self, number: int) -> Path:
        return self._folder / f"part-{number:06}.parquet"

    def write(self, number: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """A share's rows, whole.

        Raises:
            RevgraphError: They cannot be written.
        """
        import pyarrow as pa
        import pyarrow.parquet

        content = io.BytesIO()
        table = pa.Table.from_pylist([dict(row) for row in rows], self._schema)
        pyarrow.parquet.write_table(table, content, compression="zstd")
        files.write_all({self._path(number): content.getvalue()})

    def errors(self) -> int:
        """How many rows have one, of all that are there."""
        import pyarrow.parquet

        return sum(
            table["error"].length() - table["error"].null_count
            for path in sorted(self._folder.glob("part-*.parquet"))
            for table in [pyarrow.parquet.read_table(path, columns=["error"])]
        )
