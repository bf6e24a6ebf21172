"""Shares of a data set on the cores of one machine."""

import itertools
from collections.abc import Iterator, Sequence

from revgraph.dataset import places
from revgraph.dataset.explaining import Explaining, Picture
from revgraph.dataset.output import SHARE, Output, Row, Share
from revgraph.parallel import in_order

FETCHERS = 32
"""How many files are fetched from an object store at once: each answers late, and all together soon."""


def explain(explaining: Explaining, shares: Sequence[Share], output: Output, threads: int) -> Iterator[int]:
    """Write the rows of all shares.

    Each thread takes a batch from files to rows by itself: so no stage waits for a slower one, and on a GPU
    some batches are decoded while one runs.

    Yields:
        How many pictures went by, again and again.

    Raises:
        RevgraphError: Rows cannot be made or written.
    """

    def rows(batch: Sequence[Picture]) -> tuple[int, list[Row], int]:
        return batch[0].number // SHARE, explaining.rows(batch), len(batch)

    found = in_order(rows, _batches(shares, explaining.batch), threads)
    for number, group in itertools.groupby(found, key=lambda each: each[0]):
        with output.part(number) as add:
            for _, mine, count in group:
                add(mine)
                yield count


def _batches(shares: Sequence[Share], size: int) -> Iterator[list[Picture]]:
    """At most so many pictures of one share, with their files where these have a way to go."""
    pictures: Iterator[Picture] = (
        Picture(s.number * SHARE + i, path) for s in shares for i, path in enumerate(s.paths)
    )
    if any(places.is_uri(path) for share in shares for path in share.paths):
        pictures = in_order(_fetched, pictures, FETCHERS)
    for _, share in itertools.groupby(pictures, key=lambda picture: picture.number // SHARE):
        while batch := list(itertools.islice(share, size)):
            yield batch


def _fetched(picture: Picture) -> Picture:
    return picture._replace(content=places.fetch(picture.path)) if places.is_uri(picture.path) else picture
