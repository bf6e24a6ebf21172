"""Where what was built once is kept for the next time."""

import os
from pathlib import Path

import platformdirs

VARIABLE = "REVGRAPH_CACHE"
"""The environment's name for a folder of the user's choice."""


def folder() -> Path:
    moved = os.environ.get(VARIABLE)
    return Path(moved).absolute() if moved else platformdirs.user_cache_path("revgraph", appauthor=False)
