"""`revgraph inspect`."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from revgraph import draw, finite, inspect
from revgraph.cli import given, options, printing
from revgraph.cli.command import Args, Command
from revgraph.variants import NAMED


def arguments(sub: argparse.ArgumentParser) -> None:
    options.path(sub, "model", metavar="MODEL", help=options.MODEL)
    options.layer(sub)
    sub.add_argument("--input", metavar="NAME", help="the input to come back to (default: the only one)")
    help_draw = "also draw it and its DeSaliNet: .dot, or .svg, .png, .pdf where Graphviz is installed"
    options.path(sub, "--draw", metavar="FILE", help=help_draw)


def run(args: Args) -> None:
    path = given.model(args.model)
    x, y, layers = inspect.inspect(path, args.at, args.input)
    args.notes += finite.notes(dict(odd for found in layers for odd in found.odd_weights.items()))
    if args.draw:
        draw.draw(path, Path(args.draw), at=args.at, input=args.input)
    if args.json:
        printing.as_json({"x": x, "y": y, "layers": [dataclasses.asdict(found) for found in layers]})
        return
    if args.draw:
        printing.line(args.draw)
    rows = [[found.name, found.op, _shape(found.shape), *_rules(found)] for found in layers]
    heads = ["layer", "operator", "output", *NAMED, "bytes of r per image"]
    printing.columns(rows, heads)
    known = [found for found in layers if not found.problem]
    print()
    printing.line(
        f"{len(layers)} layers between {x} and {y}; bottleneck per image, as bool masks and int64 switches:"
    )
    print(_totals([found.bottleneck for found in known]))
    print(f"packed: {_totals([found.packed for found in known])}")
    for found in layers:
        if found.problem:
            printing.line(found.problem)


def _totals(rows: Sequence[Sequence[int | None]]) -> str:
    totals = [_total([row[i] for row in rows]) for i in range(len(NAMED))]
    return ", ".join(f"{variant} {total}" for variant, total in zip(NAMED, totals, strict=True))


def _shape(shape: Sequence[int | str | None] | None) -> str:
    return "?" if shape is None else " x ".join("?" if dim is None else str(dim) for dim in shape)


def _rules(found: inspect.Layer) -> list[str]:
    return ["cannot be reversed"] if found.problem else [*found.rules, _total(found.bottleneck[-1:])]


def _total(parts: Sequence[int | None]) -> str:
    known = [part for part in parts if part is not None]
    return f"{sum(known):,}" if len(known) == len(parts) else "known at run time"


COMMAND = Command(
    "list a model's layers, their rules and bottlenecks",
    ("squeezenet1_1", "alexnet.onnx --at pool5 --json"),
    arguments,
    run,
)
