"""`revgraph batch`."""

import argparse

from revgraph import dataset, neuron
from revgraph.cli import given, options, printing
from revgraph.cli.command import Args, Command
from revgraph.dataset import source
from revgraph.dataset.explaining import Asked, Means
from revgraph.dataset.run import Run


def arguments(sub: argparse.ArgumentParser) -> None:
    help_input = "a folder, a glob, a CSV or Parquet file with a column `path`; or a URI that pyarrow knows"
    options.path(sub, "input", metavar="INPUT", help=help_input)
    help_model = "as for compile, or a folder it wrote"
    options.path(sub, "--model", metavar="MODEL_OR_FOLDER", required=True, help=help_model)
    options.compilation(sub)
    options.neurons(sub)
    listed = "; ".join(f"{name} ({what})" for name, what in dataset.MAPS.items())
    sub.add_argument(
        "--maps", choices=dataset.MAPS, default="none", help=f"how saliency maps are kept: {listed}"
    )
    listed = "; ".join(f"{name} ({what})" for name, what in dataset.ENGINES.items())
    sub.add_argument("--engine", choices=dataset.ENGINES, default="local", help=f"what runs it: {listed}")
    help_batch = "pictures that run at once (default: 1 on a CPU, 32 on a GPU)"
    sub.add_argument("--batch", metavar="N", type=options.positive, default=None, help=help_batch)
    options.output(sub, "FOLDER", "a folder or URI; one that was begun is gone on with")


def run(args: Args) -> None:
    compiled, recipe = given.compilation(args)
    neurons = tuple(neuron.parse(spec) for spec in args.neuron or ["max"])
    pictures = source.listed(args.input)
    rows = Run(Asked(compiled, recipe, neurons, args.seed, args.maps), pictures, args.output)
    left = sum(len(share.paths) for share in rows.left)
    if left < len(pictures):
        args.notes.append(f"{len(pictures) - left} of {len(pictures)} pictures were there already")
    means = Means(args.engine, args.device, args.threads or 1, args.batch or 0)
    with printing.bar(args, None, left) as bar:
        for done in rows.go(means):
            bar.update(done)
    found = {
        "path": args.output,
        "pictures": len(pictures),
        "rows": len(pictures) * len(neurons),
        "errors": rows.finish(),
    }
    if found["errors"]:
        wrong = printing.count(found["errors"], "rows")
        args.notes.append(f"{wrong} of {found['rows']} say in the column error why there is no more")
    printing.results(args, [found], [printing.counted(found)])


COMMAND = Command(
    "explain whole data sets: a row for each picture, as Parquet",
    (
        "photos/ --model squeezenet1_1 -o rows",
        "list.csv --model model.onnx --recipe imagenet --neuron max --neuron class:285 --maps png -o rows",
        "s3://bucket/photos --model out --engine ray --device cuda -o s3://bucket/rows",
    ),
    arguments,
    run,
)
