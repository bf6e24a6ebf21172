"""Several items at once, results in order."""

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from revgraph import parallel


def test_results_come_in_order_and_items_as_they_are_needed() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    def slow(i: int) -> int:
        time.sleep(0.002 * (i % 3))
        return i

    found = parallel.in_order(slow, items(), 3)
    assert list(itertools.islice(found, 20)) == list(range(1, 21))
    assert taken <= 20 + 3 * parallel.AHEAD
    found.close()


def test_as_many_as_there_are_threads_run_at_once() -> None:
    meet = threading.Barrier(3, timeout=10)
    assert len(set(parallel.in_order(lambda _: meet.wait(), range(6), 3))) == 3


def test_what_fails_is_raised_in_its_turn_and_ends_it() -> None:
    done = []

    def work(i: int) -> int:
        if i == 5:
            raise ValueError(i)
        return i

    with pytest.raises(ValueError, match="5"):
        done.extend(parallel.in_order(work, range(100), 2))
    before = threading.active_count()
    found = parallel.in_order(work, range(100), 2)
    assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="5"):
        next(found)
    assert threading.active_count() == before
