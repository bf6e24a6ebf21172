"""`revgraph package`."""

import argparse
from pathlib import Path

import revgraph
from revgraph import choice, loading, serving, variants
from revgraph.cli import given, options, printing
from revgraph.cli.command import Args, Command
from revgraph.pair import Compiled
from revgraph.serving import Written


def arguments(sub: argparse.ArgumentParser) -> None:
    listed = "; ".join(f"{name} ({what})" for name, what in serving.STACKS.items())
    sub.add_argument("--for", dest="stack", required=True, choices=serving.STACKS, help=listed)
    options.served(sub)
    help_choose = "triton: how the model that is both in one chooses its neuron (default: max, the strongest)"
    sub.add_argument("--choose", choices=choice.CHOICES, help=help_choose)
    options.output(sub, "FOLDER")


def run(args: Args) -> None:
    if args.choose and args.stack != "triton":
        args.wrong("argument --choose: needs --for triton, for others are told with each request")
    written = {"triton": _triton, "kserve": _kserve, "web": _web}[args.stack]
    printing.write(args, written(args))


def _triton(args: Args) -> Written:
    from revgraph.serving import triton

    compiled = given.compiled(args)
    return triton.repository(Path(args.output), compiled, args.choose or "max", args.batch, args.device)


def _kserve(args: Args) -> Written:
    from revgraph.serving.kserve import container

    compiled, recipe = given.compilation(args)
    return container.contents(Path(args.output), compiled, args.recipe, recipe, args.batch, args.device)


def _web(args: Args) -> Written:
    from revgraph.serving import web

    compilations = _every_compilation(args)
    args.notes += compilations[0].notes
    return web.site(Path(args.output), compilations, given.recipe_for(args, compilations[0]))


def _every_compilation(args: Args) -> list[Compiled]:
    """A folder's compilations, or a model's three named variants; or the one asked for."""
    if given.is_folder(args.model):
        return loading.load_all(args.model, args.variant)
    model, names = given.model(args.model), [args.variant] if args.variant else variants.NAMED
    return [revgraph.compile(model, variant=name, at=args.at, target="web") for name in names]


COMMAND = Command(
    "write what a serving stack or a browser loads: forward and reversed graphs, or both in one",
    (
        "squeezenet1_1 --for triton -o models",
        "out --for triton --choose class --device cuda:1 -o models",
        "squeezenet1_1 --for kserve --bottleneck packed -o served",
        "model.onnx --for web --recipe imagenet -o page",
    ),
    arguments,
    run,
)
