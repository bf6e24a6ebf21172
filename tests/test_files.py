"""Reading refuses what is not there or lies outside; writing is all or nothing."""

import contextlib
import errno
import hashlib
import os
from pathlib import Path

import networks
import numpy as np
import onnx
import pytest

from revgraph import files
from revgraph.errors import RevgraphError

BYTES = networks.cnn().SerializeToString()


def refused(path, why):
    with pytest.raises(RevgraphError) as raised:
        files.read_model(path)
    assert raised.value.what == f"cannot read '{path}'"
    assert why in raised.value.why
    return raised.value


# ----- Reading -----


def test_a_model_comes_with_the_digest_of_its_file(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(BYTES)
    found, sha256 = files.read_model(path)
    assert found.whole() == networks.cnn()
    assert sha256 == hashlib.sha256(BYTES).hexdigest()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"# Networks\nThis is a text file.\n", "not an ONNX file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "not an ONNX file"),
        (b"PK\x03\x04" + bytes(64), "not an ONNX file"),
        (bytes(1000), "not an ONNX file"),
        (BYTES[: len(BYTES) // 2], "not an ONNX file"),
        (BYTES[:-1], "not an ONNX file"),
        (BYTES[:10], "not an ONNX file"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "holds no nodes"),
        (onnx.GraphProto(name="g").SerializeToString(), "not an ONNX file"),
    ],
)
def test_what_is_not_a_model_is_refused(tmp_path, content, why):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    refused(path, why)


def test_random_bytes_are_refused(tmp_path):
    path = tmp_path / "net.onnx"
    for seed in range(300):
        rng = np.random.default_rng(seed)
        path.write_bytes(rng.bytes(int(rng.integers(1, 400))))
        refused(path, "not an ONNX file")


@pytest.mark.parametrize(
    ("name", "why"),
    [("none.onnx", "there is no such file"), ("folder", "it is a folder"), ("file/net.onnx", "")],
)
def test_what_is_not_a_file_is_refused(tmp_path, name, why):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"a")
    refused(tmp_path / name, why)


def test_a_name_that_the_system_cannot_hold_is_refused(tmp_path):
    refused(tmp_path / ("n" * 300 + ".onnx"), "name too long")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_refused(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(BYTES)
    path.chmod(0)
    refused(path, "Permission denied")


def test_a_file_beyond_protobufs_limit_is_refused_unread(tmp_path):
    path = tmp_path / "net.onnx"
    with path.open("wb") as file:  # sparse: takes no space on the disk
        file.truncate(files.MAX_BYTES + 1)
    refused(path, "larger than 2 GiB")


# ----- Writing -----


@pytest.fixture
def old(tmp_path):
    """Two files that are there already, in a folder of their own."""
    paths = [tmp_path / "out" / name for name in ("a", "b")]
    files.write_all(dict.fromkeys(paths, b"old"))
    return paths


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_appear_with_their_folders(tmp_path):
    a, b = tmp_path / "new" / "deep" / "a", tmp_path / "b"
    files.write_all({a: b"1", b: b"2"})
    assert (a.read_bytes(), b.read_bytes()) == (b"1", b"2")
    assert contents(tmp_path / "new" / "deep") == {"a": b"1"}


def test_stale_files_go_only_after_the_new_are_there(old):
    a, b = old
    files.write_all({a: b"new"}, (b, a.with_name("never there")))
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
            files.write_all(dict.fromkeys(old, b"new"), (old[0].with_name("c"),))
    assert "-o" in raised.value.remedy
    assert contents(old[0].parent) == {"a": b"old", "b": b"old"}


def test_an_interruption_leaves_no_temporary_file(old, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", broken(Path.open, 1, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            files.write_all(dict.fromkeys(old, b"new"))
    assert contents(old[0].parent) == {"a": b"old", "b": b"old"}


def test_a_folder_in_the_way_is_refused_before_anything_changes(old):
    (old[1].with_name("c")).mkdir()
    with pytest.raises(RevgraphError, match="it is a folder"):
        files.write_all({old[0]: b"new", old[1].with_name("c"): b"new"})
    assert old[0].read_bytes() == b"old"
    assert sorted(path.name for path in old[0].parent.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize("under", ["a", "a/b/c"])
def test_a_file_where_a_folder_should_be_is_refused(old, under):
    with pytest.raises(RevgraphError, match="cannot write"):
        files.write_all({old[0].parent / under / "net.onnx": b"new"})
    assert contents(old[0].parent) == {"a": b"old", "b": b"old"}


def test_a_name_too_long_to_write_is_refused(tmp_path):
    with pytest.raises(RevgraphError, match="too long"):
        files.write_all({tmp_path / ("n" * 300): b"new"})
    assert not contents(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_an_unwritable_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RevgraphError, match="Permission denied"):
            files.write_all({tmp_path / "a": b"new"})
    finally:
        tmp_path.chmod(0o700)


# ----- Staging -----


def test_staged_files_appear_together_at_the_end(tmp_path):
    a, b = tmp_path / "a.png", tmp_path / "folder" / "b.png"
    with files.staging() as stage:
        for path in (a, b):
            stage(path).write_bytes(path.name.encode())
            assert stage(path) == stage(path)
            assert stage(path).suffix == ".png"
        assert not any(tmp_path.iterdir())
    assert (a.read_bytes(), b.read_bytes()) == (b"a.png", b"b.png")


def test_an_error_before_the_end_leaves_nothing(tmp_path):
    staged = []

    def fail():
        with files.staging() as stage:
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
        with files.staging() as stage:
            for path in (old[0], in_the_way):
                stage(path).write_bytes(b"new")

    with contextlib.suppress(RevgraphError):
        place()
    assert old[0].read_bytes() == b"old"
