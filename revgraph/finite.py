"""NaN, infinities and denormals: counted, told by their place, refused where nothing follows from them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from revgraph.errors import RevgraphError

CHUNK = 2**18
"""Elements looked at at once: what `count` makes of them stays in the cache, however large the array is."""


class NotFiniteError(RevgraphError):
    """Numbers that the network was given, or that it made, are NaN or infinite."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many of an array's numbers are none, or hardly any.

    Attributes:
        nan: Not a number.
        infinite: Of either sign.
        denormal: Not zero, and nearer to it than the least number of full precision: 2^-126 in float32, 2^-14
            in float16. Runtimes may take them for zero.
    """

    nan: int = 0
    infinite: int = 0
    denormal: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.nan + other.nan, self.infinite + other.infinite, self.denormal + other.denormal)

    def __bool__(self) -> bool:
        return self != Count()


def count(values: np.ndarray) -> Count:
    """Of any array, in pieces, without a copy of the whole where it is contiguous in some order.

    The bits are compared, less the sign, so that nothing depends on how the CPU treats denormals.
    """
    if values.dtype.kind != "f" or values.dtype.itemsize > 8:
        return Count()
    info, word = np.finfo(values.dtype), np.dtype(f"u{values.dtype.itemsize}")
    least, infinity = (_doubled(np.array(n, values.dtype).view(word)) for n in (info.smallest_normal, np.inf))
    return reduce(
        Count.__add__,
        (_counted(_doubled(part), least, infinity) for part in _parts(values.view(word))),
        Count(),
    )


def _parts(words: np.ndarray) -> Iterator[np.ndarray]:
    flat = words.ravel(order="K")
    return (flat[start : start + CHUNK] for start in range(0, flat.size, CHUNK))


def _doubled(words: np.ndarray) -> np.ndarray:
    """Without the sign, which is the highest bit."""
    return np.asarray(words + words)


def _counted(magnitudes: np.ndarray, least: np.ndarray, infinity: np.ndarray) -> Count:
    if magnitudes.min() >= least and magnitudes.max() < infinity:
        return Count()  # as almost always
    return Count(
        int(np.count_nonzero(magnitudes > infinity)),
        int(np.count_nonzero(magnitudes == infinity)),
        int(np.count_nonzero((magnitudes > 0) & (magnitudes < least))),
    )


def notes(odd: Mapping[str, Count]) -> Iterator[str]:
    """What people should know of weights that hold such numbers, by name."""
    total = sum(odd.values(), Count())
    if total.nan or total.infinite:
        names = listed([name for name, found in odd.items() if found.nan or found.infinite])
        yield f"weights that are NaN or infinite: {total.nan + total.infinite:,}, in {names}"
    if total.denormal:
        names = listed([name for name, found in odd.items() if found.denormal])
        may = "runtimes may take them for zero, and give other numbers then"
        yield f"weights that are denormal: {total.denormal:,}, in {names}: {may}"


def listed(names: Sequence[str]) -> str:
    """The first five, and how many there are beside."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def denormal_share(values: np.ndarray) -> float:
    """The norm of the denormals, relative to that of all: what a runtime loses that flushes them to zero."""
    whole = values.astype(np.float64)
    tiny = whole[np.abs(whole) < np.finfo(values.dtype).smallest_normal]
    return float(np.linalg.norm(tiny)) / (float(np.linalg.norm(whole)) or 1.0)


def is_finite(values: np.ndarray) -> bool:
    """Whether none is NaN or infinite; what is not floating-point never is."""
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def said(values: np.ndarray) -> str:
    """How many of these numbers are not finite, and where the first of them lies.

    >>> said(np.array([[0, np.nan], [np.inf, 1]]))
    '1 NaN and 1 infinite of 4 numbers, the first at [0, 1]'
    """
    wrong = ~np.isfinite(values)
    nan = int(np.count_nonzero(np.isnan(values)))
    infinite = int(np.count_nonzero(wrong)) - nan
    counts = " and ".join(f"{n:,} {kind}" for n, kind in ((nan, "NaN"), (infinite, "infinite")) if n)
    first = [int(i) for i in np.unravel_index(int(wrong.argmax()), values.shape)]
    return f"{counts} of {values.size:,} numbers" + (f", the first at {first}" if first else "")


def check(what: str, name: str, values: np.ndarray, remedy: str = "give finite numbers") -> None:
    """Refuse numbers that are not finite.

    Args:
        what: What cannot be done with them.
        name: What they are called.
        values: The numbers.
        remedy: What would work.

    Raises:
        NotFiniteError: It says how many are not, and where the first is.
    """
    if not is_finite(values):
        raise NotFiniteError(what, f"{name} holds {said(values)}", remedy)
