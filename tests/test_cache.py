"""Where what was built once is kept."""

import pytest

from revgraph import cache


@pytest.mark.parametrize("unset", [True, False])
def test_the_default_cache_is_the_user_s(monkeypatch, unset):
    monkeypatch.setenv("REVGRAPH_CACHE", "")
    if unset:
        monkeypatch.delenv("REVGRAPH_CACHE")
    assert "revgraph" in cache.folder().parts[-2:]
    assert cache.folder().is_absolute()
