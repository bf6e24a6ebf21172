"""`revgraph search`."""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from revgraph import picture, variants
from revgraph.cli import experiment, options, printing
from revgraph.cli.command import Args, Command
from revgraph.dataset import source
from revgraph.errors import RevgraphError

if TYPE_CHECKING:
    from revgraph.paper.search import Found


def arguments(sub: argparse.ArgumentParser) -> None:
    help_input = "as for batch: a folder, a glob, a list of pictures"
    options.path(sub, "input", metavar="INPUT", help=help_input)
    sub.add_argument("--at", metavar="LAYER", required=True, help="a tensor's name, else a node's")
    help_channel = "of that layer, from 0"
    sub.add_argument("--channel", metavar="C", type=options.whole, required=True, help=help_channel)
    sub.add_argument("--top", metavar="N", type=options.positive, default=9, help="how many pictures")
    sub.add_argument("--variant", choices=variants.VARIANTS, default="desalinet", help="how it is reversed")
    options.experiment(sub)
    options.output(sub, "PICTURE", "where the sheet goes")


def run(args: Args) -> None:
    from revgraph.paper import search

    picture.type_of(args.output)  # else refused after all the work
    subject, pictures = experiment.subject(args, threads=1), source.listed(args.input)
    looked = search.look(subject, args.variant, args.at, args.channel, pictures)
    hits = search.strongest(_noting(args, printing.bar(args, looked, len(pictures))), args.top)
    found = search.figure(subject, args.variant, args.at, args.channel, hits)
    printing.results(args, experiment.write_figure(Path(args.output), found, "the strongest first"))


def _noting(args: Args, found: "Iterable[Found]") -> "Iterator[Found]":
    """The same, with a note on what could not be read."""
    refused = []
    for each in found:
        if isinstance(each, RevgraphError):
            refused.append(each)
        yield each
    if refused:
        args.notes.append(f"{printing.count(len(refused), 'pictures')} left out: {refused[0]}")


COMMAND = Command(
    "find the pictures that excite a channel most, and show what of them did",
    (
        "holiday/ --at fire9/concat --channel 195 -o sheet.png",
        "list.csv --model vgg19.onnx --recipe caffe --at pool5 --channel 77 --top 25 -o sheet.png",
    ),
    arguments,
    run,
)
