"""`revgraph doctor`."""

import dataclasses

from revgraph import doctor
from revgraph.cli import printing
from revgraph.cli.command import Args, Command, nothing


def run(args: Args) -> int:
    findings = list(doctor.examine())
    rows = [dataclasses.asdict(found) for found in findings]
    if not args.json:
        rows = [row | {"works": "yes" if row["works"] else "no"} for row in rows]
    printing.table(args, rows, ["what", "works", "about"])
    return 0 if any(f.works for f in findings if f.what in ("cpu", "cuda")) else 1


COMMAND = Command("show what this machine can run, and why not the rest", ("", "--json"), nothing, run)
