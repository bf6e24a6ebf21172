"""`revgraph compile`."""

import argparse
from pathlib import Path

import revgraph
from revgraph import choice, compiler, variants, writing
from revgraph.cli import given, options, printing
from revgraph.cli.command import Args, Command
from revgraph.lower.targets import BOTTLENECKS, TARGETS
from revgraph.weights import LightModel


def arguments(sub: argparse.ArgumentParser) -> None:
    options.path(sub, "model", metavar="MODEL", help=options.MODEL)
    options.layer(sub)
    sub.add_argument("--variant", required=True, choices=variants.VARIANTS, help="which of the eight")
    sub.add_argument(
        "--input", metavar="NAME", help="the input that x_hat belongs to (default: the only one)"
    )
    sub.add_argument("--lrn", choices=variants.LRN, help="reversal of LRN (default: the variant's own)")
    sub.add_argument("--target", choices=TARGETS, default="portable", help="where it shall run")
    sub.add_argument(
        "--precision",
        choices=(*compiler.PRECISIONS, "bf16"),  # the last is refused with its reason
        metavar="{fp32,fp16}",
        default="fp32",
        help="fp16: compute in float16 where that suits, and keep what comes back in its range",
    )
    help_packed = "packed: masks and switches cross in as few bits as they need"
    sub.add_argument("--bottleneck", choices=BOTTLENECKS, default="plain", help=help_packed)
    help_full = "turn a classifier's fully connected head into convolutions, so that any picture size runs"
    sub.add_argument("--fully-convolutional", action="store_true", help=help_full)
    sub.add_argument("--fused", action="store_true", help="one file in place of two")
    help_choose = "with --fused, p is chosen in the graph: the largest of y, or by an input `class`"
    sub.add_argument("--choose", choices=choice.CHOICES, help=help_choose)
    options.output(sub, "FOLDER")


def run(args: Args) -> None:
    if args.choose and not args.fused:
        args.wrong("argument --choose: needs --fused, for p crosses between two files")
    compiled = revgraph.compile(
        given.model(args.model),
        variant=args.variant,
        at=args.at,
        input=args.input,
        lrn=args.lrn,
        target=args.target,
        precision=args.precision,
        bottleneck=args.bottleneck,
        fully_convolutional=args.fully_convolutional,
    )
    args.notes += compiled.notes
    models = compiled.models(args.output, args.fused, args.choose)
    contents, stale = compiled.contents(models)
    writing.write_all(contents, stale)
    rows = [{"path": str(path)} | _size(path, models.get(path)) for path in contents]
    printing.results(args, rows, [printing.counted(row) for row in rows])


def _size(path: Path, light: LightModel | None) -> dict[str, int]:
    """What a file holds: a graph, or the weights of others."""
    if light is None:
        return {"bytes": path.stat().st_size}
    graph = light.model.graph
    return {"nodes": len(graph.node), "inputs": len(graph.input), "outputs": len(graph.output)}


COMMAND = Command(
    "write a model's forward graph, tapped, and its reversed graph",
    (
        "squeezenet1_1 --variant desalinet -o out",
        "alexnet.onnx --variant salinet --at pool5 --lrn bp -o out",
        "model.onnx --variant desalinet --fused --choose class -o out",
    ),
    arguments,
    run,
)
