"""What commands print: results on stdout, a line for each and its path first, or JSON; the rest on stderr."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

from revgraph import writing
from revgraph.cli.command import Args
from revgraph.errors import printable
from revgraph.serving import Written

Row = dict[str, Any]


def say_notes(args: Args) -> None:
    """Print the notes so far."""
    while args.notes:
        note = args.notes.pop(0)
        if not args.quiet:
            print(f"revgraph: note: {printable(note)}", file=sys.stderr)


class _Bar(tqdm):  # type: ignore[type-arg]
    disable = True  # until it has begun: what is interrupted before that is ended all the same


def bar(args: Args, items: Iterable[Any] | None, total: int, unit: str = "picture") -> Any:
    """How far it is with so many pictures, where someone looks."""
    return _Bar(items, total=total, unit=unit, disable=True if args.quiet else None)


def results(args: Args, rows: Sequence[Row], shown: Sequence[Sequence[Any]] | None = None) -> None:
    """A line for each result, path first; or JSON.

    Args:
        args: The command's.
        rows: What JSON says of each.
        shown: What its line says, where that is not all of it.
    """
    if args.json:
        as_json(rows)
    elif rows:
        columns([list(row.values()) for row in rows] if shown is None else shown)


def table(args: Args, rows: Sequence[Row], heads: Sequence[str], hidden: Sequence[str] = ()) -> None:
    """Rows under heads, without the columns that are hidden; or JSON."""
    if args.json:
        as_json(rows)
        return
    shown = [[value for key, value in row.items() if key not in hidden] for row in rows]
    columns(shown, heads)


def columns(rows: Sequence[Sequence[Any]], heads: Sequence[str] = ()) -> None:
    """A line for each row, whatever the names in it hold."""
    cells = [[printable(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    print(tabulate(cells, heads, tablefmt="plain", disable_numparse=True))


def line(text: str, flush: bool = False) -> None:
    """One line, whatever the names in it hold."""
    print(printable(text), flush=flush)


def as_json(found: Any) -> None:
    """Whatever was found, for programs to read."""
    print(json.dumps(found, indent=2))


def count(number: int, noun: str) -> str:
    """`3 rows`, `1 row`."""
    return f"{number} {noun.removesuffix('s') if number == 1 else noun}"


def counted(row: Row) -> list[Any]:
    """A path, and how many it has of each."""
    return [row["path"], *(count(row[noun], noun) for noun in row if noun != "path")]


def write(args: Args, written: Written) -> None:
    """Write files, and print a line on each that has one."""
    writing.write_all({path: content for path, (content, _) in written.items()})
    results(args, [{"path": str(path), "what": what} for path, (_, what) in written.items() if what])
