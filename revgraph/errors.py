"""What a user can fix.

Anything else that goes wrong is a bug and keeps its traceback.
"""


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


def missing_extra(what: str, package: str, extra: str) -> RevgraphError:
    """The error for a package that an extra of revgraph brings and that is not installed."""
    return RevgraphError(what, f"{package} is not installed", f'pip install "revgraph[{extra}]"')
