"""`revgraph variants`."""

from revgraph import variants
from revgraph.cli import printing
from revgraph.cli.command import Args, Command, nothing


def run(args: Args) -> None:
    rows = [
        {"variant": name, "title": variants.TITLES[name]}
        | {op: table[op].name for op in ("Relu", "MaxPool", "LRN")}
        for name, table in variants.VARIANTS.items()
    ]
    heads = ["variant", "known as", "reversed ReLU", "reversed max pooling", "reversed LRN"]
    printing.table(args, rows, heads)


COMMAND = Command("list the eight variants of the paper's Fig. 3", ("", "--json"), nothing, run)
