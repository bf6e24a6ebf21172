"""The pictures of a data set: a folder, a glob, a CSV or Parquet file with a column `path`, or a picture."""

import csv
import glob
import io
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from revgraph.dataset import places
from revgraph.errors import RevgraphError
from revgraph.picture import SUFFIXES
from revgraph.reading import check_ordinary

COLUMN = "path"


def listed(source: str) -> list[str]:
    """The paths of the pictures, in an order that is always the same; one may be listed several times.

    Args:
        source: A folder stands for all pictures in it and below it, and a glob, of this machine, for those
            that match. Paths in a CSV or Parquet file that are not absolute begin at the file's folder.

    Raises:
        RevgraphError: There are none, or the list cannot be read.
    """
    address, mark, options = source.partition("?") if places.is_uri(source) else (source, "", "")
    reads = {".csv": _csv, ".parquet": _parquet}.get(PurePosixPath(address).suffix.lower())
    if reads is not None and not os.path.isdir(source):
        folder = os.path.dirname(address) + mark + options
        found = [places.inside(folder, path) for path in reads(source)]
    else:
        found = _of_store(source) if places.is_uri(source) else _of_machine(source)
    if not found:
        remedy = "a folder, a glob, or a CSV or Parquet file with a column 'path'"
        raise RevgraphError(f"no pictures in '{source}'", "it names none", remedy)
    return found


def _of_machine(source: str) -> list[str]:
    if os.path.isdir(source):
        inside = Path(source).rglob("*")
        return sorted(str(path) for path in inside if path.suffix.lower() in SUFFIXES and path.is_file())
    if os.path.isfile(source):
        return [source]
    return sorted(path for path in glob.glob(source, recursive=True) if os.path.isfile(path))


def _of_store(source: str) -> list[str]:
    pa, (store, path) = places.arrow(), places.located(source)
    with places.trouble(f"cannot list '{source}'"):
        if store.get_file_info(path).type == pa.fs.FileType.File:
            return [source]
        inside = store.get_file_info(pa.fs.FileSelector(path, recursive=True))
    within = sorted(info.path[len(path.rstrip("/")) :] for info in inside if info.type == pa.fs.FileType.File)
    pictures = (name for name in within if PurePosixPath(name).suffix.lower() in SUFFIXES)
    return [places.inside(source, name) for name in pictures]


def _csv(source: str) -> Sequence[str]:
    what = f"cannot read '{source}'"
    store, path = places.located(source)
    with places.trouble(what):
        if not places.is_uri(source):
            check_ordinary(Path(path))
        with store.open_input_file(path) as file:
            content = file.read()
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        _check_column(what, rows.fieldnames or ())
        return [row[COLUMN] for row in rows if row[COLUMN]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RevgraphError(what, str(error), "a CSV file in UTF-8") from error


def _parquet(source: str) -> Sequence[str]:
    what = f"cannot read '{source}'"
    pq: Any = places.arrow().parquet
    store, path = places.located(source)
    with places.trouble(what), pq.ParquetFile(path, filesystem=store) as file:
        _check_column(what, file.schema_arrow.names)
        return [str(each) for each in file.read([COLUMN])[COLUMN].to_pylist() if each]


def _check_column(what: str, names: Sequence[str]) -> None:
    if COLUMN not in names:
        raise RevgraphError(what, f"it has no column '{COLUMN}'", f"it has {', '.join(names)}")
