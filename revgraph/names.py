"""Names that nothing else has."""

import itertools
from collections.abc import Container


def first_free(stem: str, taken: Container[str], start: int = 1) -> str:
    """`stem` unless it is taken, else the first free of `stem_<start>`, `stem_<start + 1>`, ..."""
    names = itertools.chain([stem], (f"{stem}_{i}" for i in itertools.count(start)))
    return next(name for name in names if name not in taken)
