"""Shares of a data set on the cores of one machine."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

from revgraph.dataset.explaining import Explaining
from revgraph.dataset.output import SHARE, Output, Row, Share
from revgraph.parallel import in_order


def explain(explaining: Explaining, shares: Iterable[Share], output: Output, threads: int) -> Iterator[int]:
    """Write the rows of all shares.

    Each thread takes a batch from files to rows by itself: so no stage waits for a slower one, and on a GPU
    some batches are decoded while one runs.

    Yields:
        How many pictures went by, again and again.

    Raises:
        RevgraphError: Rows cannot be made or written.
    """

    def batches() -> Iterator[tuple[Share, int, Sequence[str]]]:
        for share in shares:
            for start in range(0, len(share.paths), explaining.batch):
                yield share, start, share.paths[start : start + explaining.batch]

    def rows(batch: tuple[Share, int, Sequence[str]]) -> tuple[int, int, list[Row]]:
        share, start, paths = batch
        return share.number, len(paths), explaining.rows(share.number * SHARE + start, paths)

    found = in_order(rows, batches(), threads)
    for number, group in itertools.groupby(found, key=lambda each: each[0]):
        with output.part(number) as add:
            for _, count, mine in group:
                add(mine)
                yield count
