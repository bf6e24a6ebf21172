"""What a user can fix.

Anything else that goes wrong is a bug and keeps its traceback.
"""

import contextlib
from collections.abc import Iterator


class RevgraphError(Exception):
    """This input cannot be done: what, why, and what would work, as one line.

    Attributes:
        what: The thing that failed, for example "cannot reverse node 'Resize_3'".
        why: The reason.
        remedy: What the user can do instead.
    """

    def __init__(self, what: str, why: str, remedy: str) -> None:
        # Messages of other libraries travel inside `why`; the command line promises exactly one line.
        self.what, self.why, self.remedy = (" ".join(part.split()) for part in (what, why, remedy))
        super().__init__(f"{self.what}: {self.why} ({self.remedy})")


@contextlib.contextmanager
def naming(picture: object, kind: type[RevgraphError] = RevgraphError) -> Iterator[None]:
    """What goes wrong inside, of that kind, is said of that picture."""
    try:
        yield
    except kind as error:
        raise type(error)(f"'{picture}': {error.what}", error.why, error.remedy) from error


def missing_extra(what: str, package: str, extra: str) -> RevgraphError:
    """The error for a package that an extra of revgraph brings and that is not installed."""
    return RevgraphError(what, f"{package} is not installed", f'pip install "revgraph[{extra}]"')
