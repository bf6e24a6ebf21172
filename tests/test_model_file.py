"""Reading refuses what is not there or lies outside."""

import hashlib
import os

import networks
import numpy as np
import onnx
import pytest

from revgraph import model_file
from revgraph.errors import RevgraphError

BYTES = networks.cnn().SerializeToString()


def refused(path, why):
    with pytest.raises(RevgraphError) as raised:
        model_file.read_model(path)
    assert raised.value.what == f"cannot read '{path}'"
    assert why in raised.value.why
    return raised.value


# ----- Reading -----


def test_a_model_comes_with_the_digest_of_its_file(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(BYTES)
    found, sha256 = model_file.read_model(path)
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
        file.truncate(model_file.MAX_BYTES + 1)
    refused(path, "larger than 2 GiB")
