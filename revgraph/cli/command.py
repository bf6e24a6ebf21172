"""What a command is: its line in the help, its arguments, and the function that they are handed to."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

Args = argparse.Namespace
"""What was given: the command's own arguments, those of every command, and

* `notes`: lines for stderr once the command is done; a command adds to them.
* `wrong`: ends the command as wrong usage, with a line.
"""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the program.

    Attributes:
        text: What it does, in a line.
        examples: Its arguments in examples of its use.
        arguments: Declares what it takes.
        run: Does it; returns the exit status, None for 0.
    """

    text: str
    examples: tuple[str, ...]
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Args], int | None]


def nothing(sub: argparse.ArgumentParser) -> None:
    """The arguments of a command that takes none of its own."""
