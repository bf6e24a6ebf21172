"""What a file holds takes the memory that it needs, and no more."""

import tracemalloc

import pytest

from revgraph import reading


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    return path


def test_a_small_file_takes_little_memory_whatever_is_allowed(file):
    tracemalloc.start()
    try:
        assert reading.read_bytes(file) == b"abc"
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_more_than_is_allowed_is_refused(file):
    assert reading.read_bytes(file, 3) == b"abc"
    with pytest.raises(OSError, match="it has more than 2 bytes"):
        reading.read_bytes(file, 2)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        reading.read_bytes(tmp_path)
