"""`revgraph run`."""

import argparse
from pathlib import Path

import numpy as np

from revgraph import neuron, picture, picture_files, writing
from revgraph.cli import given, options, printing
from revgraph.cli.command import Args, Command
from revgraph.cli.printing import Row
from revgraph.errors import naming
from revgraph.explain import Explainer, Explanation
from revgraph.finite import NotFiniteError
from revgraph.pair import Compiled
from revgraph.session import Session


def arguments(sub: argparse.ArgumentParser) -> None:
    options.path(sub, "model", metavar="MODEL_OR_FOLDER", help="as for compile, or a folder it wrote")
    options.path(sub, "picture", metavar="PICTURE", nargs="+", help="picture files, or folders of them")
    options.compilation(sub)
    options.neurons(sub)
    options.output(sub, "PICTURE_OR_FOLDER", "a picture's path for one result, else a folder")


def run(args: Args) -> None:
    picture_files.check_output(Path(args.output))
    compiled, recipe = given.compilation(args)
    explainer = Explainer(Session(compiled, threads=args.threads, device=args.device), recipe)
    pictures = picture_files.find_pictures(args.picture)
    neurons = [neuron.parse(spec) for spec in args.neuron or ["max"]]
    paths = picture_files.output_paths(Path(args.output), pictures, compiled.variant, neurons)
    rng = np.random.default_rng(args.seed)
    caption = f"{compiled.name}, {compiled.variant} from {compiled.at}"
    rows: list[Row] = []
    with writing.staging() as stage:
        for source in printing.bar(args, pictures, len(pictures)):
            image = picture.read(source)
            with naming(source, NotFiniteError):
                for found in explainer.explain(image, neurons, rng):
                    path = paths[len(rows)]
                    stage(path).write_bytes(picture.encode(found.draw(caption), path))
                    rows.append(_row(path, source, compiled, found))
    args.notes += [
        f"x_hat in '{row['path']}' is all zero: nothing survives after {row['vanished']}"
        for row in rows
        if row["vanished"]
    ]
    printing.results(args, rows, [[row["path"], row["summary"]] for row in rows])


def _row(path: Path, source: Path, compiled: Compiled, found: Explanation) -> Row:
    return {
        "path": str(path),
        "picture": str(source),
        "variant": compiled.variant,
        "at": compiled.at,
        "neuron": str(found.neuron),
        **found.peak._asdict(),
        "label": found.label,
        "probability": found.probability,
        "vanished": found.vanished,
        "summary": found.summary,
    }


COMMAND = Command(
    "explain pictures: the input, x_hat and the saliency map side by side",
    (
        "squeezenet1_1 cat.jpg -o cat.png",
        "out holiday/ --variant desalinet --neuron max --neuron class:285 -o explained",
    ),
    arguments,
    run,
)
