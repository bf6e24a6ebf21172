"""`revgraph figure`."""

import argparse
import importlib
from pathlib import Path

from revgraph import paper, picture, picture_files, zoo
from revgraph.cli import experiment, options, printing
from revgraph.cli.command import Args, Command
from revgraph.cli.printing import Row


def arguments(sub: argparse.ArgumentParser) -> None:
    listed = "; ".join(f"{name} ({what})" for name, what in paper.FIGURES.items())
    sub.add_argument("figure", metavar="NAME", choices=(*paper.FIGURES, "all"), help=f"{listed}; or all")
    help_picture = "a picture or a folder of them, may be given several times (default: scikit-image's)"
    options.path(sub, "--picture", metavar="PICTURE", action="append", default=[], help=help_picture)
    options.experiment(sub)
    options.output(sub, "FILE_OR_FOLDER", "a picture's path; for all a folder")


def run(args: Args) -> None:
    from revgraph.paper import measure

    every = args.figure == "all"
    if not every:
        picture.type_of(args.output)  # else refused after all the work
    subject = experiment.subject(args)
    names = [name for name in paper.FIGURES if every or name == args.figure]
    if every and not subject.normalises:
        names.remove("lrn")
        args.notes.append(f"no figure lrn: '{subject.name}' has no local response normalisation")
    given = picture_files.find_pictures(args.picture)
    pictures = [(path.stem, picture.read(path)) for path in given]
    pictures = pictures or [(name, zoo.sample(name)) for name in zoo.SAMPLES]
    rows: list[Row] = []
    for name in printing.bar(args, names, len(names), "figure") if every else names:
        found = importlib.import_module(f"revgraph.paper.{name}").figure(subject, pictures)
        path = Path(args.output, f"{subject.name}.{name}.png") if every else Path(args.output)
        rows += experiment.write_figure(path, found, paper.FIGURES[name])
        args.notes += [
            f"in '{path}' {row['picture']} by {row.get('method') or row.get('variant') or row.get('image')} "
            f"is all zero: {measure.VANISHED} {row[measure.VANISHED]}"
            for row in found.numbers
            if row.get(measure.VANISHED)
        ]
    printing.results(args, rows)


COMMAND = Command(
    "repeat a figure of the paper, with its numbers in a CSV beside it",
    (
        "overview -o overview.png",
        "phase --model vgg19.onnx --recipe caffe --picture cat.jpg -o phase.png",
        "all -o figures",
    ),
    arguments,
    run,
)
