"""Where data sets lie: folders of this machine, and what pyarrow reaches by a URI (s3://, gs://, hdfs://)."""

import contextlib
import io
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from revgraph import picture
from revgraph.errors import RevgraphError, missing_extra

BYTES = 64 * 2**20
"""Most of a file in a store: some are held before their turn comes."""


def arrow() -> Any:
    """The package pyarrow, with its parts for file systems and Parquet.

    Raises:
        RevgraphError: It is not installed.
    """
    try:
        import pyarrow
        import pyarrow.dataset
        import pyarrow.fs
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("cannot read or write data sets", "pyarrow", "batch") from error
    return pyarrow


def is_uri(place: str) -> bool:
    return "://" in place


def inside(place: str, path: str) -> str:
    """A path in a folder, unless it is absolute or a URI itself; options of the folder's URI are kept."""
    if is_uri(path) or not is_uri(place):
        return path if is_uri(path) else os.path.join(place, path)
    address, mark, options = place.partition("?")
    return f"{address.rstrip('/')}/{path.lstrip('/')}{mark}{options}"


def shown(place: str) -> str:
    """As it may be written down: text, and of a URI neither a password nor options."""
    if is_uri(place):
        parts = urlsplit(place, allow_fragments=False)
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return place.encode(errors="backslashreplace").decode()


def located(place: str) -> tuple[Any, str]:
    """pyarrow's file system, and the path in it.

    Raises:
        RevgraphError: There is no such store.
    """
    if not is_uri(place):
        return arrow().fs.LocalFileSystem(), place
    parts = urlsplit(place, allow_fragments=False)
    store, root = _store(parts.scheme, parts.netloc, parts.query)
    return store, root.rstrip("/") + parts.path


@lru_cache
def _store(scheme: str, host: str, options: str) -> tuple[Any, str]:
    """A file system and its root: opening one takes a while, and data sets have a million pictures."""
    pa = arrow()
    uri = f"{scheme}://{host}/" + (f"?{options}" if options else "")
    with trouble(f"cannot use '{uri}'"):
        store, root = pa.fs.FileSystem.from_uri(uri)
    return store, str(root)


@contextlib.contextmanager
def trouble(what: str) -> Iterator[None]:
    """What pyarrow or the system says of a place, as an error of revgraph's."""
    try:
        yield
    except (OSError, arrow().ArrowException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise RevgraphError(what, why, "check the place, its rights and its room") from error


def fetch(place: str) -> bytes | RevgraphError:
    """What a file in a store holds, or why it cannot be had."""
    what = f"cannot read picture '{shown(place)}'"
    try:
        store, path = located(place)
        with trouble(what), store.open_input_file(path) as file:
            content = bytes(file.read(BYTES + 1))
    except RevgraphError as error:
        return error
    if len(content) > BYTES:
        return RevgraphError(what, f"it has more than {BYTES} bytes", "a smaller copy of it")
    return content


def read(place: str, content: bytes | RevgraphError | None = None) -> Image.Image:
    """A picture as RGB, as `picture.read` has it.

    Args:
        place: Where it is.
        content: What `fetch` gave, if it was fetched.

    Raises:
        RevgraphError: It cannot be read.
    """
    if not is_uri(place):
        return picture.read(place)
    found = fetch(place) if content is None else content
    if isinstance(found, RevgraphError):
        raise found
    return picture.decode(io.BytesIO(found), f"cannot read picture '{shown(place)}'")
