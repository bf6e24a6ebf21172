"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real networks and pictures, too large or not licensed to be part of the project."""
    folder = Path(os.environ.get("REVGRAPH_SHARED", Path(__file__).parents[1] / ".." / "shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real networks and pictures: '{folder}' is no folder (set REVGRAPH_SHARED)")
    return folder
