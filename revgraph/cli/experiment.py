"""What the paper's experiments are given and give: a network with its recipe, a figure with its numbers."""

from pathlib import Path
from typing import TYPE_CHECKING

from revgraph import finite, network, odd_weights, pair, picture, writing
from revgraph.cli import given
from revgraph.cli.command import Args
from revgraph.cli.printing import Row

if TYPE_CHECKING:
    from revgraph.paper.sheet import Figure
    from revgraph.paper.subject import Subject


def subject(args: Args, threads: int = 0) -> "Subject":
    """The network of an experiment, and its recipe; so many threads for a run of it unless told."""
    from revgraph.paper.subject import Subject

    path = given.model(args.model)
    source = network.read(path)
    noted = {entry.key: entry.value for entry in source.light.model.metadata_props}
    chosen = given.recipe_of(args, noted.get(pair.PREFIX + "recipe"))
    found = Subject(path, source.name, chosen, args.threads or threads, args.device)
    args.notes += finite.notes(odd_weights.count(found.path))
    return found


def write_figure(path: Path, found: "Figure", what: str) -> list[Row]:
    """Write a figure and its numbers; a row for each file."""
    from revgraph.paper import sheet

    table = path.with_suffix(".csv")
    writing.write_all({path: picture.encode(found.image, path), table: sheet.table(found.numbers)})
    return [{"path": str(path), "what": what}, {"path": str(table), "what": "its numbers"}]
