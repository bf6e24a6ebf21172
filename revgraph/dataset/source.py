"""The pictures of a data set: a folder, a glob, a CSV or Parquet file with a column `path`, or a picture."""

import csv
import glob
import os
from collections.abc import Iterable
from pathlib import Path

from revgraph.errors import RevgraphError, missing_extra
from revgraph.explain import PICTURES

COLUMN = "path"


def listed(source: str) -> list[str]:
    """The paths of the pictures, in an order that is always the same; one may be listed several times.

    Args:
        source: A folder stands for all pictures in it and below it, and a glob for those that match. Paths
            in a CSV or Parquet file that are not absolute begin at the file's folder.

    Raises:
        RevgraphError: There are none, or the list cannot be read.
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if os.path.isdir(path):
        found = sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
    elif suffix in (".csv", ".parquet") and path.is_file():
        read = _csv if suffix == ".csv" else _parquet
        found = [os.path.join(path.parent, each) for each in read(path)]
    elif path.is_file():
        found = [source]
    else:
        found = sorted(each for each in glob.glob(source, recursive=True) if os.path.isfile(each))
    if not found:
        remedy = "a folder, a glob, or a CSV or Parquet file with a column 'path'"
        raise RevgraphError(f"no pictures in '{source}'", "it names none", remedy)
    return found


def _csv(path: Path) -> Iterable[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if COLUMN not in (rows.fieldnames or ()):
                raise _no_column(path, list(rows.fieldnames or ()))
            return [row[COLUMN] for row in rows if row[COLUMN]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RevgraphError(f"cannot read '{path}'", str(error), "a CSV file in UTF-8") from error


def _parquet(path: Path) -> Iterable[str]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra(f"cannot read '{path}'", "pyarrow", "batch") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if COLUMN not in file.schema_arrow.names:
                raise _no_column(path, file.schema_arrow.names)
            return [str(each) for each in file.read([COLUMN])[COLUMN].to_pylist() if each]
    except pyarrow.ArrowException as error:
        raise RevgraphError(f"cannot read '{path}'", str(error), "a Parquet file") from error


def _no_column(path: Path, names: list[str]) -> RevgraphError:
    return RevgraphError(f"cannot read '{path}'", f"it has no column '{COLUMN}'", f"it has {', '.join(names)}")
