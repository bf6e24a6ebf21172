"""Names that nothing else has."""

import itertools
from collections.abc import Container


def first_free(stem: str, taken: Container[str], start: int = 1) -> str:
    """`stem` unless it is taken, else the first free of `stem_<start>`, `stem_<start + 1>`, ..."""
    names = itertools.chain([stem], (f"{stem}_{i}" for i in itertools.count(start)))
    return next(name for name in names if name not in taken)


def next_free(stem: str, taken: Container[str], tried: dict[str, int]) -> str:
    """As `first_free` from 1 on, but without trying again what was taken before, and stays so.

    Args:
        stem: As there.
        taken: As there.
        tried: For each stem where the search goes on; kept by the caller.
    """
    i = tried.get(stem, 0)
    while (name := f"{stem}_{i}" if i else stem) in taken:
        i += 1
    tried[stem] = i
    return name
