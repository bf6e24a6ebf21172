"""What a user can fix.

Anything else that goes wrong is a bug and keeps its traceback.
"""

import contextlib
from collections.abc import Iterator

MOST = 2000
"""Most letters of a part of a message: names in models and messages of other libraries may be megabytes."""


class RevgraphError(Exception):
    """This input cannot be done: what, why, and what would work, as one line.

    Attributes:
        what: The thing that failed, for example "cannot reverse node 'Resize_3'".
        why: The reason.
        remedy: What the user can do instead.
    """

    def __init__(self, what: str, why: str, remedy: str) -> None:
        # Messages of other libraries travel inside `why`; the command line promises exactly one line.
        self.what, self.why, self.remedy = map(_line, (what, why, remedy))
        super().__init__(f"{self.what}: {self.why} ({self.remedy})")


@contextlib.contextmanager
def naming(picture: object, kind: type[RevgraphError] = RevgraphError) -> Iterator[None]:
    """What goes wrong inside, of that kind, is said of that picture."""
    try:
        yield
    except kind as error:
        raise type(error)(f"'{picture}': {error.what}", error.why, error.remedy) from error


def _line(text: str) -> str:
    """The text in one line, not too long, of letters that a terminal shows."""
    line = " ".join(text.split())
    if len(line) > MOST:
        line = f"{line[: MOST // 2]} ... {line[-MOST // 2 :]}"
    return printable(line)


def printable(text: str) -> str:
    """The text in letters that a terminal shows and does not obey: names in models may hold any."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def invalid_model(why: str) -> RevgraphError:
    """The error for a model that breaks ONNX's own rules."""
    return RevgraphError("this model is not valid ONNX", why, "check it with onnx.checker.check_model")


def missing_extra(what: str, package: str, extra: str) -> RevgraphError:
    """The error for a package that an extra of revgraph brings and that is not installed."""
    return RevgraphError(what, f"{package} is not installed", f'pip install "revgraph[{extra}]"')
