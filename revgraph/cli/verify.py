"""`revgraph verify`."""

import argparse
import dataclasses

from revgraph import loading, variants, verify
from revgraph.cli import given, options, printing
from revgraph.cli.command import Args, Command


def arguments(sub: argparse.ArgumentParser) -> None:
    options.path(sub, "folder", metavar="FOLDER", folder=True, help="where revgraph compile wrote")
    help_model = "what it was compiled from, to check the outputs too"
    options.path(sub, "--model", metavar="MODEL", help=help_model)
    sub.add_argument(
        "--variant", choices=variants.VARIANTS, help="which compilation, where there are several"
    )
    options.seed(sub, "of the random inputs")


def run(args: Args) -> int:
    compiled = loading.load(args.folder, args.variant)
    model = None if args.model is None else given.model(args.model)
    checks = []
    for check in verify.verify(compiled, model, threads=args.threads, device=args.device, seed=args.seed):
        checks.append(check)
        if not args.json:
            figure = "" if check.figure is None else f"{check.figure:.1e}"
            said = f"{check.verdict}  {check.what:<33}  {figure:>7}  {check.detail}"
            printing.line(said.rstrip(), flush=True)
    passed = all(check.passed is not False for check in checks)
    if args.json:
        printing.as_json({"passed": passed, "checks": [dataclasses.asdict(c) for c in checks]})
    else:
        print("PASSED" if passed else "FAILED")
    return 0 if passed else 1


COMMAND = Command(
    "prove a compilation right on its own network, in float64",
    ("out --variant desalinet", "out --model alexnet.onnx"),
    arguments,
    run,
)
