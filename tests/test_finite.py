"""NaN, infinities and denormals are counted one by one, told by their place, and refused."""

import math
import re
import tracemalloc

import numpy as np
import pytest

from revgraph import finite
from revgraph.finite import Count, NotFiniteError

LEAST = {np.float16: 2.0**-14, np.float32: 2.0**-126, np.float64: 2.0**-1022}
"""The smallest numbers of full precision."""


def counted(values):
    """Number by number, by the definition."""
    least = LEAST[values.dtype.type]
    numbers = [float(v) for v in values.ravel()]
    return Count(
        sum(map(math.isnan, numbers)),
        sum(map(math.isinf, numbers)),
        sum(0 < abs(v) < least for v in numbers),
    )


# ----- Counting -----


@pytest.mark.parametrize("dtype", LEAST)
def test_each_kind_at_its_borders(dtype):
    least = np.array(LEAST[dtype], dtype)
    below = np.nextafter(least, np.array(0, dtype))
    tiny = np.nextafter(np.array(0, dtype), least)
    edges = [0, -0.0, least, -least, below, -below, tiny, -tiny, 1, -1]
    edges += [np.finfo(dtype).max, np.finfo(dtype).min, np.inf, -np.inf, np.nan, -np.nan]
    values = np.array(edges, dtype)
    assert finite.count(values) == counted(values) == Count(nan=2, infinite=2, denormal=4)
    for value in values:
        assert finite.count(value.reshape(())) == counted(value.reshape(1)), value


@pytest.mark.parametrize("dtype", LEAST)
def test_any_bits(dtype):
    bits = np.random.default_rng(0).integers(0, 256, (3, 700, np.dtype(dtype).itemsize), np.uint8)
    values = bits.view(dtype)[..., 0]
    assert finite.count(values) == counted(values) != Count()
    for seen in (values.T, values[:, ::-3], np.asfortranarray(values)):
        assert finite.count(seen) == counted(seen)


def test_what_is_no_float_holds_none():
    for values in (np.arange(5), np.array([True]), np.zeros(0, np.float32), np.array(["nan"])):
        assert finite.count(values) == Count()
        assert finite.is_finite(values)


def test_pieces_add_up_to_the_whole(monkeypatch):
    monkeypatch.setattr(finite, "CHUNK", 7)
    values = np.random.default_rng(0).standard_normal((9, 11)).astype(np.float32)
    values[::2, 3], values[4, 5], values[8, 10] = 1e-40, np.nan, -np.inf
    assert finite.count(values) == counted(values) == Count(1, 1, 5)


@pytest.mark.parametrize("turned", [False, True])
def test_counting_copies_pieces_alone(turned):
    values = np.ones((16, 2**20), np.float32)  # 64 MiB
    values = values.T if turned else values
    tracemalloc.start()
    finite.count(values)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * 2**20


def test_the_share_of_denormals():
    values = np.array([[3e-5, -4e-5], [1e-4, 0]], np.float16)
    small = values.astype(np.float64).ravel()[:2]
    share = math.sqrt((small**2).sum() / (values.astype(np.float64) ** 2).sum())
    assert finite.denormal_share(values) == pytest.approx(share, rel=1e-12)
    assert finite.denormal_share(np.zeros(3, np.float16)) == 0


# ----- Telling -----


@pytest.mark.parametrize("dtype", LEAST)
def test_it_says_how_many_and_where_the_first_is(dtype):
    values = np.zeros((40, 50), dtype)
    values[3, 4:7], values[3, 2], values[30] = np.nan, np.inf, -np.inf
    assert finite.said(values) == "3 NaN and 51 infinite of 2,000 numbers, the first at [3, 2]"
    assert finite.said(np.array(np.nan, dtype)) == "1 NaN of 1 numbers"
    why = "cannot do that: z holds 3 NaN and 51 infinite of 2,000 numbers, the first at [3, 2] (do this)"
    with pytest.raises(NotFiniteError, match=re.escape(why)):
        finite.check("cannot do that", "z", values, "do this")
    finite.check("cannot do that", "z", values[:3], "do this")


def test_long_lists_are_cut():
    (note,) = finite.notes({f"w{i}": Count(denormal=1000) for i in range(7)})
    assert note.startswith("weights that are denormal: 7,000, in w0, w1, w2, w3, w4 and 2 more: runtimes may")
    assert list(finite.notes({})) == []
