"""Writing files: all of them or none, whatever happens, whoever is killed, and whoever else writes there.

Files that belong together are first written into a folder of their own beside their places, together with
what they replace. Renaming that folder decides: whatever happens then, the next to come, this process or
another, moves the files in and is done. Two who write into one folder wait for each other.

Windows has no locks of folders. There each file is whole, but files of two that wrote at once, or of one that
was killed, may stand beside each other, and are then told apart by their digest.
"""

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from revgraph.errors import RevgraphError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Content = bytes | Path | Iterable[bytes | memoryview]
"""What a file shall hold: bytes, what another file holds, or pieces in turn."""

MARK = ".revgraph-"
"""How the folders in which files wait begin; they lie in the folder that holds all places."""

NEW, OLD = ".new", ".old"
"""What they end in once it is decided which of the two shall stand."""

PUT, DROP = "put", "drop"
"""What is in each half: files to be moved in, and empty ones for those that shall not be there."""


def write_all(contents: Mapping[Path, Content], stale: tuple[Path, ...] = ()) -> None:
    """Write files, and remove the stale ones.

    Args:
        contents: For each place what shall stand there; pieces are taken one at a time.
        stale: Files that those replace.

    Raises:
        RevgraphError: A file cannot be written; then everything is as it was.
    """
    if not contents:
        return
    places = {path: Path(os.path.realpath(path.parent), path.name) for path in (*contents, *stale)}
    base = Path(os.path.commonpath([place.parent for place in places.values()]))
    with contextlib.ExitStack() as leftovers, _trouble(next(iter(contents))):
        _make_folder(base, leftovers)
        with _locked(base, alone=True) as lock:
            if lock is not None:
                _settle(base)
            work = base / f"{MARK}{secrets.token_hex(4)}"
            leftovers.callback(shutil.rmtree, work, ignore_errors=True)
            for path, place in places.items():
                with _trouble(path):
                    _write(contents.get(path), place, work, base)
            _exchange(work, base)


@contextlib.contextmanager
def _trouble(path: Path) -> Iterator[None]:
    """What the system says of writing a file, as an error of revgraph's."""
    try:
        yield
    except OSError as error:
        why, remedy = error.strerror or str(error), "choose another place with -o"
        raise RevgraphError(f"cannot write '{path}'", why, remedy) from error


def _make_folder(folder: Path, leftovers: contextlib.ExitStack) -> None:
    """Make a folder and its parents; those still empty at the end go again."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        leftovers.callback(_remove_empty, made)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _write(content: Content | None, place: Path, work: Path, base: Path) -> None:
    """Write what shall stand at a place, None for nothing, and keep what stands there now."""
    new, old = (_inside(work / half, place.relative_to(base)) for half in (NEW, OLD))
    there = _is_there(place)
    if there:
        _keep(place, old(PUT))
    else:
        old(DROP).touch()
    if content is None:
        new(DROP).touch()
    elif isinstance(content, Path):
        shutil.copyfile(content, new(PUT))
    else:
        with new(PUT).open("xb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)


def _inside(half: Path, name: Path) -> Callable[[str], Path]:
    """Where in a half of the folder a file's new or old content waits, by what shall become of it."""

    def waiting(kind: str) -> Path:
        path = half / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    return waiting


def _is_there(place: Path) -> bool:
    """Whether a file stands at the place; what is no file stays where it is."""
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "what stands there is not a file")
    return True


def _keep(place: Path, copy: Path) -> None:
    """A second name for a file where the file system has that, else a copy."""
    try:
        os.link(place, copy)
    except OSError:
        shutil.copyfile(place, copy)


def _exchange(work: Path, base: Path) -> None:
    """Move the new files in; if that fails, the old ones come back."""
    decided = work.with_suffix(NEW)
    os.rename(work, decided)
    try:
        _move_in(decided / NEW, base)
    except BaseException:
        decided = decided.rename(work.with_suffix(OLD))
        _move_in(decided / OLD, base)
        raise
    finally:
        shutil.rmtree(decided, ignore_errors=True)


def _move_in(half: Path, base: Path) -> None:
    """Do what a half of the folder says; what was done already is passed over."""
    for waiting, name in _files(half / PUT):
        place = base / name
        with _trouble(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(waiting, place)
    for _, name in _files(half / DROP):
        (base / name).unlink(missing_ok=True)


def _files(folder: Path) -> list[tuple[Path, Path]]:
    """Every file in a folder, and its path from there."""
    return [(path, path.relative_to(folder)) for path in sorted(folder.rglob("*")) if not path.is_dir()]


# ---------------------------------------------------------------- others


@contextlib.contextmanager
def settled(folder: Path) -> Iterator[None]:
    """Nobody writes into the folder meanwhile, and what a killed process had decided there is done.

    Raises:
        RevgraphError: It cannot be done.
    """
    with _locked(folder, alone=False) as lock:
        while lock is not None and any(work.suffix in (NEW, OLD) for work in _waiting(folder)):
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                _settle(folder)
            except OSError as error:
                why = f"what wrote there was killed, and cannot be finished: {error.strerror or error}"
                raise RevgraphError(f"cannot read '{folder}'", why, "write it again") from error
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def _locked(folder: Path, alone: bool) -> Iterator[int | None]:
    """A folder's lock, for one who writes or for all who read; None where there is none to be had."""
    if fcntl is None:
        yield None
        return
    with contextlib.ExitStack() as held:
        lock = None
        with contextlib.suppress(OSError):  # no right to list the folder; a file system without locks
            opened = os.open(folder, os.O_RDONLY)
            held.callback(os.close, opened)
            fcntl.flock(opened, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            lock = opened
        yield lock


def _settle(folder: Path) -> None:
    """Carry through what killed processes had decided, and throw away what they had not."""
    for work in _waiting(folder):
        if work.suffix in (NEW, OLD):
            _move_in(work / work.suffix, folder)
        shutil.rmtree(work)


def _waiting(folder: Path) -> list[Path]:
    """The folders in which files of this user wait; others' might say anything."""
    found = [path for path in folder.glob(f"{MARK}*") if path.is_dir() and not path.is_symlink()]
    return [path for path in found if not hasattr(os, "geteuid") or path.stat().st_uid == os.geteuid()]


# ---------------------------------------------------------------- files made one by one


@contextlib.contextmanager
def staging() -> Iterator[Callable[[Path], Path]]:
    """Files that appear in their places together at the end, or not at all if something fails before.

    Yields:
        A function from a file's place to the path to write it at.
    """
    with _temporary_folder() as folder:
        staged: dict[Path, Path] = {}

        def stage(path: Path) -> Path:
            return staged.setdefault(path, Path(folder) / f"{len(staged)}{path.suffix}")

        yield stage
        write_all(staged)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="revgraph-")
    except OSError as error:
        what, remedy = "cannot make a temporary folder", "set TMPDIR to a folder that can be written"
        raise RevgraphError(what, error.strerror or str(error), remedy) from error
    with folder as name:
        yield name
