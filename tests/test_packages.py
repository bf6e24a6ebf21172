"""Files of installed packages."""

import sys

import pytest

from revgraph import packages
from revgraph.errors import RevgraphError


def test_absent_file_of_a_package():
    with pytest.raises(RevgraphError, match=r"cannot find 'numpy/nothing': numpy .* has no such file"):
        packages.packaged("numpy", "numpy/nothing")


def test_a_file_is_found_without_importing_its_package(monkeypatch):
    monkeypatch.delitem(sys.modules, "shtab", raising=False)
    assert packages.packaged("shtab", "shtab/__init__.py").is_file()
    assert "shtab" not in sys.modules
