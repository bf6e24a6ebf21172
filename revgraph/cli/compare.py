"""`revgraph compare`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from revgraph import compare, neuron, panels, picture, picture_files, variants, writing
from revgraph.cli import given, options, printing
from revgraph.cli.command import Args, Command
from revgraph.cli.printing import Row
from revgraph.errors import RevgraphError, naming
from revgraph.feeding import Feeder
from revgraph.finite import NotFiniteError
from revgraph.pair import Compiled
from revgraph.session import Session


def arguments(sub: argparse.ArgumentParser) -> None:
    what = "an ONNX file, a network of `revgraph models`, or a folder that revgraph compile wrote"
    options.path(sub, "a", metavar="A", help=what)
    help_b = "another of the same network; its channels may lie elsewhere"
    options.path(sub, "b", metavar="B", help=help_b)
    help_picture = "a picture, or a folder of them (default: one random input)"
    options.path(sub, "picture", metavar="PICTURE", nargs="*", help=help_picture)
    help_variant = "of both, or given twice (default: desalinet, or the folder's own)"
    sub.add_argument("--variant", choices=variants.VARIANTS, action="append", help=help_variant)
    help_layer = f"of both, or given twice: {options.LAYER}"
    sub.add_argument("--at", metavar="LAYER", action="append", help=help_layer)
    sub.add_argument("--neuron", metavar="SPEC", default="max", help="chosen by what A makes of the input")
    options.recipe(sub, "how pictures are fed")
    options.seed(sub)
    help_output = "a picture, or a folder, of both images and their difference (default: none is drawn)"
    options.path(sub, "-o", "--output", metavar="PICTURE_OR_FOLDER", help=help_output)


def run(args: Args) -> None:
    _check(args)
    a, b = _session(args, 0), _session(args, 1)
    chosen, rng = neuron.parse(args.neuron), np.random.default_rng(args.seed)
    feeder = Feeder(a.pair, given.recipe_for(args, a.pair)) if args.picture else None
    pictures: list[Path | None] = [*picture_files.find_pictures(args.picture)] or [None]
    named = [path for path in pictures if path is not None]
    paths = picture_files.output_paths(Path(args.output), named, "compare", [chosen]) if args.output else []
    titles = _told_apart(a.pair, b.pair)
    rows: list[Row] = []
    with writing.staging() as stage:
        for i, source in enumerate(printing.bar(args, pictures, len(pictures))):
            image = None if source is None else picture.read(source)
            x = feeder.feed(image) if feeder and image else compare.random_input(a, rng)
            with naming(source or "a random input", NotFiniteError):
                found = compare.compare(a, b, x, chosen, rng)
            row = {"picture": str(source or "a random input"), "neuron": str(chosen), **_figures(found)}
            if paths and feeder and image:
                shown = feeder.rgb(found.x_hats[0][0]), feeder.rgb(found.x_hats[1][0])
                caption = f"cosine {found.cosine:.4f}, relative error {found.error:.2g}"
                drawn = panels.compared(feeder.crop(image), shown, titles, caption)
                stage(paths[i]).write_bytes(picture.encode(drawn, paths[i]))
                row = {"path": str(paths[i])} | row
            rows.append(row)
    printing.table(args, rows, list(rows[0]))


def _check(args: Args) -> None:
    for option, values in ("--variant", args.variant), ("--at", args.at):
        if len(values or ()) > 2:
            why = f"{option} was given {len(values)} times"
            raise RevgraphError("cannot tell which of two networks is meant", why, "give it once or twice")
    if args.output and not args.picture:
        why, remedy = "no picture was named", "name one, or leave -o out"
        raise RevgraphError(f"cannot draw '{args.output}'", why, remedy)
    if args.output:
        picture_files.check_output(Path(args.output))


def _session(args: Args, i: int) -> Session:
    """Of the first or the second network."""

    def mine(values: Sequence[str] | None) -> str | None:
        return values[min(i, len(values) - 1)] if values else None

    compiled = given.compiled_for((args.a, args.b)[i], mine(args.variant), mine(args.at), args.device)
    return Session(compiled, threads=args.threads, device=args.device)


def _told_apart(first: Compiled, second: Compiled) -> tuple[str, str]:
    """What each is called over its picture."""
    if first.name != second.name:
        return first.name, second.name
    if first.variant != second.variant:
        return first.variant, second.variant
    return f"{first.name} (1)", f"{second.name} (2)"


def _figures(found: compare.Comparison) -> dict[str, Any]:
    return {
        "cosine": round(found.cosine, 7),
        "relative error": float(f"{found.error:.2g}"),
        "rank correlation": round(found.rank_correlation, 7),
        "forward parts at": found.forward_parts or "-",
        "reversed parts at": found.reversed_parts or "-",
    }


COMMAND = Command(
    "hold two compilations of one network against each other",
    (
        "torch.onnx keras.onnx",
        "torch.onnx keras.onnx holiday/ --variant salinet -o sheets",
        "squeezenet1_1 squeezenet1_1 cat.jpg --variant salinet --variant desalinet -o cat.png",
    ),
    arguments,
    run,
)
