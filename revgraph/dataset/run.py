"""A data set explained: begun, or gone on with where it was stopped."""

from collections.abc import Iterator, Sequence

from revgraph import parallel
from revgraph.dataset import cluster, pipeline
from revgraph.dataset.explaining import Asked, Means
from revgraph.dataset.output import SHARE, Output, listing
from revgraph.feeding import Feeder


class Run:
    """Rows of pictures in a folder.

    Args:
        asked: What of each picture.
        pictures: Their paths, in order.
        place: The folder, or a URI.

    Attributes:
        left: The shares that have no rows yet.

    Raises:
        NoPicturesError: The network takes none of the recipe's kind.
        RevgraphError: pyarrow is not installed, or the folder holds rows of others, or cannot be written.
    """

    def __init__(self, asked: Asked, pictures: Sequence[str], place: str) -> None:
        Feeder(asked.pair, asked.recipe)  # refuses what takes no pictures, before anything is written
        self._asked, self._output = asked, Output(place, asked.maps)
        noted = {"pictures": len(pictures), "listing": listing(pictures), "share": SHARE}
        self._output.begin(noted | asked.settings())
        self.left = self._output.left(pictures)

    def go(self, means: Means) -> Iterator[int]:
        """Explain what is left.

        Yields:
            How many pictures went by, again and again.

        Raises:
            RevgraphError: It cannot be explained or written.
        """
        if not self.left:
            return
        if means.engine == "ray":
            yield from cluster.explain(self._asked, self.left, self._output, means)
        else:
            workers = means.workers(parallel.cores())
            yield from pipeline.explain(means.explaining(self._asked), self.left, self._output, workers)

    def finish(self) -> int:
        """How many rows have an error, once all are there."""
        return self._output.finish()
