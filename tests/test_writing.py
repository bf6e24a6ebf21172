"""Writing is all or nothing, whatever fails, whoever is killed, and whoever else writes there."""

import contextlib
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from revgraph import writing
from revgraph.errors import RevgraphError

# ----- Writing -----


@pytest.fixture
def old(tmp_path):
    """Two files that are there already, in a folder of their own."""
    paths = [tmp_path / "out" / name for name in ("a", "b")]
    writing.write_all(dict.fromkeys(paths, b"old"))
    return paths


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_appear_with_their_folders(tmp_path):
    a, b = tmp_path / "new" / "deep" / "a", tmp_path / "b"
    writing.write_all({a: b"1", b: b"2"})
    assert (a.read_bytes(), b.read_bytes()) == (b"1", b"2")
    assert contents(tmp_path / "new" / "deep") == {"a": b"1"}


def test_nothing_to_write_is_no_error():
    writing.write_all({})


def test_stale_files_go_only_after_the_new_are_there(old):
    a, b = old
    writing.write_all({a: b"new"}, (b, a.with_name("never there")))
    assert contents(a.parent) == {"a": b"new"}


def broken(real, calls, error):
    """`real`, failing at the call of that number and at no other."""
    count = iter(range(100))

    def function(*args, **kwargs):
        if next(count) == calls:
            raise error
        return real(*args, **kwargs)

    return function


DISK_FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("calls", [0, 1])
@pytest.mark.parametrize("function", ["replace", "write"])
def test_a_failure_in_the_middle_leaves_everything_as_it_was(old, monkeypatch, function, calls):
    with monkeypatch.context() as patch:
        if function == "replace":
            patch.setattr(os, "replace", broken(os.replace, calls, DISK_FULL))
        else:
            patch.setattr(Path, "open", broken(Path.open, calls, DISK_FULL))
        with pytest.raises(RevgraphError, match=r"cannot write .*: No space left on device") as raised:
            writing.write_all(dict.fromkeys(old, b"new"), (old[0].with_name("c"),))
    assert "-o" in raised.value.remedy
    assert contents(old[0].parent) == {"a": b"old", "b": b"old"}


def test_an_interruption_leaves_no_temporary_file(old, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", broken(Path.open, 1, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            writing.write_all(dict.fromkeys(old, b"new"))
    assert contents(old[0].parent) == {"a": b"old", "b": b"old"}


def test_a_folder_in_the_way_is_refused_before_anything_changes(old):
    (old[1].with_name("c")).mkdir()
    with pytest.raises(RevgraphError, match="it is a folder"):
        writing.write_all({old[0]: b"new", old[1].with_name("c"): b"new"})
    assert old[0].read_bytes() == b"old"
    assert sorted(path.name for path in old[0].parent.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize("under", ["a", "a/b/c"])
def test_a_file_where_a_folder_should_be_is_refused(old, under):
    with pytest.raises(RevgraphError, match="cannot write"):
        writing.write_all({old[0].parent / under / "net.onnx": b"new"})
    assert contents(old[0].parent) == {"a": b"old", "b": b"old"}


def test_a_name_too_long_to_write_is_refused(tmp_path):
    with pytest.raises(RevgraphError, match="too long"):
        writing.write_all({tmp_path / ("n" * 300): b"new"})
    assert not contents(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_an_unwritable_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RevgraphError, match="Permission denied"):
            writing.write_all({tmp_path / "a": b"new"})
    finally:
        tmp_path.chmod(0o700)


# ----- Staging -----


def test_staged_files_appear_together_at_the_end(tmp_path):
    a, b = tmp_path / "a.png", tmp_path / "folder" / "b.png"
    with writing.staging() as stage:
        for path in (a, b):
            stage(path).write_bytes(path.name.encode())
            assert stage(path) == stage(path)
            assert stage(path).suffix == ".png"
        assert not any(tmp_path.iterdir())
    assert (a.read_bytes(), b.read_bytes()) == (b"a.png", b"b.png")


def test_an_error_before_the_end_leaves_nothing(tmp_path):
    staged = []

    def fail():
        with writing.staging() as stage:
            staged.append(stage(tmp_path / "a"))
            staged[0].write_bytes(b"1")
            raise RevgraphError("what", "why", "remedy")

    with pytest.raises(RevgraphError):
        fail()
    assert not any(tmp_path.iterdir())
    assert not staged[0].exists()


def test_staged_files_that_cannot_all_be_placed_are_not_placed_at_all(old):
    in_the_way = old[0].with_name("c")
    in_the_way.mkdir()

    def place():
        with writing.staging() as stage:
            for path in (old[0], in_the_way):
                stage(path).write_bytes(b"new")

    with contextlib.suppress(RevgraphError):
        place()
    assert old[0].read_bytes() == b"old"


def test_what_is_no_file_is_left_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RevgraphError, match="what stands there is not a file"):
        writing.write_all({tmp_path / "a": b"new", tmp_path / "pipe": b"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


# ----- Killed -----

KILLED = """
import itertools, json, os, signal, sys
from pathlib import Path
from revgraph import writing

def killed_at(event):
    seen = itertools.count()
    def hook(name, arguments):
        if name.partition(".")[0] in ("os", "shutil", "open") and next(seen) == event:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def state(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}

root, old, new, stale = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
for event in itertools.count():
    folder = root / str(event)
    folder.mkdir()
    writing.write_all({folder / name: text.encode() for name, text in old.items()})
    child = os.fork()
    if child == 0:
        contents = {folder / name: text.encode() for name, text in new.items()}
        killed_at(event)
        writing.write_all(contents, tuple(folder / name for name in stale))
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    before = [p.name for p in folder.iterdir()]
    with writing.settled(folder):
        read = {name: text for name, text in state(folder).items() if not name.startswith(".")}
    writing.write_all({folder / "other": b"later"})
    print(json.dumps([before, read, state(folder)]))
"""
OLD = {"a": "old a", "b": "old b", "gone": "old c"}
NEW = {"a": "new a", "b": "new b", "deep/d": "new d"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL and locks of folders are POSIX's")
def test_a_kill_at_any_point_leaves_the_old_files_or_the_new(tmp_path):
    """At each step that the system sees: what a reader finds, and what is there after another write."""
    sets = [json.dumps(each) for each in (OLD, NEW, ["gone"])]
    command = [sys.executable, "-c", KILLED, str(tmp_path), *sets]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(seen) > 30
    for before, read, after in seen:
        assert read in (OLD, NEW), before
        assert after == read | {"other": "later"}
    assert [read == NEW for _, read, _ in seen] == sorted(read == NEW for _, read, _ in seen)
    assert 5 < sum(read == NEW for _, read, _ in seen) < len(seen) - 5
    assert any(set(before) & set(NEW) != set(NEW) and read == NEW for before, read, _ in seen)


TOGETHER = """
import os, sys
from pathlib import Path
from revgraph import writing

folder, writers, times = Path(sys.argv[1]), *map(int, sys.argv[2:])
children = []
for writer in range(writers):
    children.append(os.fork())
    if children[-1] == 0:
        for i in range(times):
            content = f"{writer}/{i}".encode()
            writing.write_all({folder / name: content for name in "abc"})
        os._exit(0)
found = set()
while children := [child for child in children if os.waitpid(child, os.WNOHANG) == (0, 0)]:
    with writing.settled(folder):
        read = {(folder / name).read_text() for name in "abc" if (folder / name).exists()}
    assert len(read) <= 1, read
    found |= read
print(len(found))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="locks of folders are POSIX's")
def test_two_who_write_at_once_do_not_mix(tmp_path):
    command = [sys.executable, "-c", TOGETHER, str(tmp_path), "3", "40"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 5


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root makes files of others")
def test_what_others_left_is_not_moved_in(tmp_path):
    waiting = tmp_path / f"{writing.MARK}0{writing.NEW}"
    (waiting / writing.NEW / writing.PUT).mkdir(parents=True)
    (waiting / writing.NEW / writing.PUT / "a").write_text("planted")
    os.chown(waiting, 12345, -1)
    (tmp_path / "a").write_text("mine")
    with writing.settled(tmp_path):
        assert (tmp_path / "a").read_text() == "mine"
    writing.write_all({tmp_path / "b": b"new"})
    assert (tmp_path / "a").read_text() == "mine"
