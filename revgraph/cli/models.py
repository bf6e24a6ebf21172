"""`revgraph models`."""

from revgraph import recipe
from revgraph.cli import printing
from revgraph.cli.command import Args, Command, nothing


def run(args: Args) -> None:
    rows = []
    for name in recipe.names():
        found = recipe.load(name)
        source = (
            f"{found.source.package}=={found.source.version}" if found.source else "none: preprocessing only"
        )
        rows.append(
            {
                "recipe": name,
                "title": found.title,
                "network": source,
                "licence": dict(found.licence),
                "layers": dict(found.layers),
            }
        )
    printing.table(args, rows, ["recipe", "what", "network from"], hidden=("licence", "layers"))


COMMAND = Command("list the recipes and networks that revgraph knows", ("", "--json"), nothing, run)
