"""The command line: parse, call one function, print."""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

import revgraph
from revgraph import (
    choice,
    compare,
    compiler,
    demo,
    doctor,
    draw,
    explain,
    files,
    inspect,
    neuron,
    pair,
    picture,
    recipe,
    variants,
    verify,
    zoo,
)
from revgraph.errors import RevgraphError
from revgraph.pair import Compiled
from revgraph.runtime import Device
from revgraph.session import Session
from revgraph.weights import LightModel

Args = argparse.Namespace

EVERYWHERE = {"quiet": False, "json": False, "device": "cpu", "threads": 0}
"""Defaults of the options that every command takes, before or after its name."""


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Every default shown, where there is one; examples as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        0 done, 1 this input cannot be done, or is not right. Wrong usage exits with 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of layers may hold what a terminal's code page lacks
            stream.reconfigure(errors="replace")
    args = argparse.Namespace(**{**EVERYWHERE, **vars(_parser().parse_args(argv))}, notes=[])
    try:
        status = args.command(args)
    except RevgraphError as error:
        print(f"revgraph: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the results has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        known = RevgraphError(
            f"cannot use '{error.filename}'", error.strerror or str(error), "name another path"
        )
        print(f"revgraph: error: {known}", file=sys.stderr)
        return 1
    for note in () if args.quiet else args.notes:
        print(f"revgraph: note: {note}", file=sys.stderr)
    return int(status or 0)


# ---------------------------------------------------------------- commands


def _compile(args: Args) -> None:
    if args.choose and not args.fused:
        args.wrong("argument --choose: needs --fused, for p crosses between two files")
    compiled = revgraph.compile(
        _model(args.model),
        variant=args.variant,
        at=args.at,
        input=args.input,
        lrn=args.lrn,
        target=args.target,
        precision=args.precision,
        bottleneck=args.bottleneck,
        fully_convolutional=args.fully_convolutional,
    )
    _note_beyond_paper(args, compiled)
    _report_files(args, compiled, compiled.save(args.output, args.fused, args.choose))


def _note_beyond_paper(args: Args, compiled: Compiled) -> None:
    if names := compiled.beyond_paper:
        listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        args.notes.append(f"activations that the paper does not have are reversed by their slope: {listed}")


def _report_files(args: Args, compiled: Compiled, paths: Sequence[Path]) -> None:
    models = compiled.models(args.output, args.fused, args.choose)
    rows = [{"path": str(path)} | _size(path, models.get(path)) for path in paths]
    _print(
        args,
        rows,
        lambda row: [row["path"], *(_count(row[noun], noun) for noun in row if noun != "path")],
    )


def _size(path: Path, light: LightModel | None) -> dict[str, int]:
    """What a file holds: a graph, or the weights of others."""
    if light is None:
        return {"bytes": path.stat().st_size}
    graph = light.model.graph
    return {"nodes": len(graph.node), "inputs": len(graph.input), "outputs": len(graph.output)}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun.removesuffix('s') if number == 1 else noun}"


def _run(args: Args) -> None:
    compiled, chosen = _compilation(args)
    _note_beyond_paper(args, compiled)
    explainer = explain.Explainer(Session(compiled, threads=args.threads, device=args.device), chosen)
    pictures = explain.find_pictures(args.picture)
    neurons = [neuron.parse(spec) for spec in args.neuron or ["max"]]
    paths = explain.output_paths(Path(args.output), pictures, compiled.variant, neurons)
    rng = np.random.default_rng(args.seed)
    caption = f"{compiled.name}, {compiled.variant} from {compiled.at}"
    rows: list[dict[str, Any]] = []
    with files.staging() as stage:
        for source in tqdm(pictures, unit="picture", disable=True if args.quiet else None):
            for found in explainer.explain(picture.read(source), neurons, rng):
                path = paths[len(rows)]
                stage(path).write_bytes(picture.encode(found.draw(caption), path))
                rows.append(_row(path, source, compiled, found))
    for row in rows:
        if row["vanished"]:
            args.notes.append(
                f"x_hat in '{row['path']}' is all zero: nothing survives after {row['vanished']}"
            )
    _print(args, rows, lambda row: [row["path"], row["summary"]])


def _row(path: Path, source: Path, compiled: Compiled, found: explain.Explanation) -> dict[str, Any]:
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


def _compilation(args: Args) -> tuple[Compiled, recipe.Recipe]:
    """What `run` was given, compiled, and the recipe for its pictures."""
    compiled = _compiled(args)
    return compiled, _recipe(args, compiled)


def _compiled(args: Args) -> Compiled:
    """A folder's compilation, or a model's."""
    folder = Path(args.model)
    if os.path.isdir(folder):  # which, unlike Path's, is False for a name that no file can have
        compiled = pair.load(folder, args.variant)
        outputs = {node.name: node.output[0] for node in compiled.light_forward.model.graph.node}
        if args.at not in (None, compiled.at) and outputs.get(args.at) != compiled.at:
            why = f"it was compiled at '{compiled.at}'"
            raise RevgraphError(f"cannot run '{folder}' at '{args.at}'", why, "compile again with --at")
        return compiled
    variant = args.variant or "desalinet"
    target = Device.of(args.device).kind
    return revgraph.compile(_model(args.model), variant=variant, at=args.at, target=target)


def _recipe(args: Args, compiled: Compiled) -> recipe.Recipe:
    own = compiled.metadata.get("recipe")
    if name := args.recipe or (own if own in recipe.names() else None):  # a model cannot name a file
        return recipe.load(name)
    args.notes.append("no recipe given: fed RGB / 255 with ImageNet's mean and std (choose with --recipe)")
    return dataclasses.replace(recipe.load("imagenet"), labels=None)  # its classes may be anything


def _model(name: str) -> Path:
    """A model file, or the network that a recipe names."""
    known = name in recipe.names() and not os.path.exists(name)
    return zoo.model_path(recipe.load(name)) if known else Path(name)


def _inspect(args: Args) -> None:
    path = _model(args.model)
    x, y, layers = inspect.inspect(path, args.at, args.input)
    if args.draw:
        draw.draw(path, Path(args.draw), at=args.at, input=args.input)
        if not args.json:
            print(args.draw)
    if args.json:
        print(
            json.dumps({"x": x, "y": y, "layers": [dataclasses.asdict(found) for found in layers]}, indent=2)
        )
        return
    rows = [[found.name, found.op, _shape(found.shape), *_rules(found)] for found in layers]
    heads = ["layer", "operator", "output", *inspect.SHOWN, "bytes of r per image"]
    print(tabulate(rows, heads, tablefmt="plain", disable_numparse=True))
    known = [found for found in layers if not found.problem]
    print(
        f"\n{len(layers)} layers between {x} and {y}; bottleneck per image, as bool masks and int64 switches:"
    )
    print(_totals([found.bottleneck for found in known]))
    print(f"packed: {_totals([found.packed for found in known])}")
    for found in layers:
        if found.problem:
            print(found.problem)


def _totals(rows: Sequence[Sequence[int | None]]) -> str:
    totals = [_total([row[i] for row in rows]) for i in range(len(inspect.SHOWN))]
    return ", ".join(f"{variant} {total}" for variant, total in zip(inspect.SHOWN, totals, strict=True))


def _shape(shape: Sequence[int | str | None] | None) -> str:
    return "?" if shape is None else " x ".join("?" if dim is None else str(dim) for dim in shape)


def _rules(found: inspect.Layer) -> list[str]:
    return ["cannot be reversed"] if found.problem else [*found.rules, _total(found.bottleneck[-1:])]


def _total(parts: Sequence[int | None]) -> str:
    known = [part for part in parts if part is not None]
    return f"{sum(known):,}" if len(known) == len(parts) else "known at run time"


def _compare(args: Args) -> None:
    _check_compare(args)
    a, b = _session(args, 0), _session(args, 1)
    chosen, rng = neuron.parse(args.neuron), np.random.default_rng(args.seed)
    explainer = explain.Explainer(a, _recipe(args, a.pair)) if args.picture else None
    pictures: list[Path | None] = [*explain.find_pictures(args.picture)] or [None]
    files_named = [path for path in pictures if path is not None]
    paths = explain.output_paths(Path(args.output), files_named, "compare", [chosen]) if args.output else []
    names = _told_apart(a.pair, b.pair)
    rows: list[dict[str, Any]] = []
    with files.staging() as stage:
        for i, source in enumerate(tqdm(pictures, unit="picture", disable=True if args.quiet else None)):
            image = None if source is None else picture.read(source)
            x = explainer.feed(image) if explainer and image else compare.random_input(a, rng)
            found = compare.compare(a, b, x, chosen, rng)
            row = {"picture": str(source or "a random input"), "neuron": str(chosen), **_figures(found)}
            if paths and explainer and image:
                shown = explainer.rgb(found.x_hats[0][0]), explainer.rgb(found.x_hats[1][0])
                caption = f"cosine {found.cosine:.4f}, relative error {found.error:.2g}"
                drawn = picture.compare(explainer.recipe.crop(image, explainer.size), shown, names, caption)
                stage(paths[i]).write_bytes(picture.encode(drawn, paths[i]))
                row = {"path": str(paths[i])} | row
            rows.append(row)
    _table(args, rows, list(rows[0]))


def _check_compare(args: Args) -> None:
    for option, given in ("--variant", args.variant), ("--at", args.at):
        if len(given or ()) > 2:
            why = f"{option} was given {len(given)} times"
            raise RevgraphError("cannot tell which of two networks is meant", why, "give it once or twice")
    if args.output and not args.picture:
        why, remedy = "no picture was named", "name one, or leave -o out"
        raise RevgraphError(f"cannot draw '{args.output}'", why, remedy)


def _session(args: Args, i: int) -> Session:
    """Of the first or the second network that `compare` was given."""

    def mine(given: Sequence[str] | None) -> str | None:
        return given[min(i, len(given) - 1)] if given else None

    one = argparse.Namespace(
        model=(args.a, args.b)[i], variant=mine(args.variant), at=mine(args.at), device=args.device
    )
    return Session(_compiled(one), threads=args.threads, device=args.device)


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


def _verify(args: Args) -> int:
    compiled = pair.load(args.folder, args.variant)
    model = None if args.model is None else _model(args.model)
    checks = []
    for check in verify.verify(compiled, model, threads=args.threads, device=args.device, seed=args.seed):
        checks.append(check)
        if not args.json:
            figure = "" if check.figure is None else f"{check.figure:.1e}"
            print(f"{check.verdict}  {check.what:<33}  {figure:>7}  {check.detail}".rstrip(), flush=True)
    passed = all(check.passed is not False for check in checks)
    if args.json:
        print(json.dumps({"passed": passed, "checks": [dataclasses.asdict(c) for c in checks]}, indent=2))
    else:
        print("PASSED" if passed else "FAILED")
    return 0 if passed else 1


def _variants(args: Args) -> None:
    rows = [
        {"variant": name, "title": variants.TITLES[name]}
        | {op: table[op].name for op in ("Relu", "MaxPool", "LRN")}
        for name, table in variants.VARIANTS.items()
    ]
    _table(args, rows, ["variant", "known as", "reversed ReLU", "reversed max pooling", "reversed LRN"])


def _models(args: Args) -> None:
    rows = []
    for name in recipe.names():
        found = recipe.load(name)
        source = (
            f"{found.source.package}=={found.source.version}" if found.source else "none: preprocessing only"
        )
        rows.append({"recipe": name, "title": found.title, "network": source, "licence": dict(found.licence)})
    _table(args, rows, ["recipe", "what", "network from"], hidden="licence")


def _demo(args: Args) -> None:
    paths = demo.demo(Path(args.output), threads=args.threads, device=args.device)
    _print(args, [{"path": str(path), "what": what} for path, what in paths], lambda row: list(row.values()))


def _doctor(args: Args) -> int:
    findings = list(doctor.examine())
    rows = [dataclasses.asdict(found) for found in findings]
    if not args.json:
        rows = [row | {"works": "yes" if row["works"] else "no"} for row in rows]
    _table(args, rows, ["what", "works", "about"])
    return 0 if any(f.works for f in findings if f.what in ("cpu", "cuda")) else 1


# ---------------------------------------------------------------- printing


def _print(args: Args, rows: list[dict[str, Any]], line: Callable[[dict[str, Any]], list[str]]) -> None:
    """One line per file, path first; or JSON."""
    if args.json:
        print(json.dumps(rows, indent=2))
    elif rows:
        print(tabulate([line(row) for row in rows], tablefmt="plain", disable_numparse=True))


def _table(args: Args, rows: list[dict[str, Any]], heads: list[str], hidden: str = "") -> None:
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    shown = [[value for key, value in row.items() if key != hidden] for row in rows]
    print(tabulate(shown, heads, tablefmt="plain", disable_numparse=True))


# ---------------------------------------------------------------- arguments


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = common.add_argument_group("everywhere")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes on stderr")
    group.add_argument("--json", action="store_true", help="results as JSON on stdout")
    group.add_argument("--device", type=_device, metavar="NAME", help="cpu, cuda, cuda:1 (default: cpu)")
    group.add_argument(
        "--threads", type=_whole, metavar="N", help="onnxruntime's threads (default: 0, it decides)"
    )
    parser = argparse.ArgumentParser(
        "revgraph",
        description=revgraph.__doc__,
        epilog="examples:\n  revgraph demo -o out\n  revgraph run squeezenet1_1 cat.jpg -o cat.png",
        formatter_class=_Help,
        parents=[common],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"revgraph {revgraph.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, function: Callable[[Args], int | None], text: str, *examples: str
    ) -> argparse.ArgumentParser:
        epilog = "examples:\n" + "\n".join(f"  revgraph {name} {example}".rstrip() for example in examples)
        sub = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=epilog,
            formatter_class=_Help,
            parents=[common],
            allow_abbrev=False,
        )
        sub.set_defaults(command=function)
        return sub

    _compile_arguments(command)
    _run_arguments(command)
    sub = command("inspect", _inspect, "list a model's layers, their rules and bottlenecks", *_INSPECT)
    _model_arguments(sub)
    sub.add_argument("--input", metavar="NAME", help="the input to come back to (default: the only one)")
    help_draw = "also draw it and its DeSaliNet: .dot, or .svg, .png, .pdf where Graphviz is installed"
    sub.add_argument("--draw", metavar="FILE", help=help_draw)
    _verify_arguments(command)
    _compare_arguments(command)
    command("variants", _variants, "list the eight variants of the paper's Fig. 3", "", "--json")
    command("models", _models, "list the recipes and networks that revgraph knows", "", "--json")
    command("doctor", _doctor, "show what this machine can run, and why not the rest", "", "--json")
    sub = command(
        "demo", _demo, "compile SqueezeNet, run it on a photograph and draw the result", "", "-o out"
    )
    sub.add_argument("-o", "--output", default="out", metavar="FOLDER", help="where the files go")
    return parser


_INSPECT = ("squeezenet1_1", "alexnet.onnx --at pool5 --json")
_LAYER = "a tensor's name, else a node's (default: what the softmax receives, else the first output)"


def _model_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", metavar="MODEL", help="an ONNX file, or a network of `revgraph models`")
    sub.add_argument("--at", metavar="LAYER", help=_LAYER)


def _compile_arguments(command: Callable[..., argparse.ArgumentParser]) -> None:
    sub = command(
        "compile",
        _compile,
        "write a model's forward graph, tapped, and its reversed graph",
        "squeezenet1_1 --variant desalinet -o out",
        "alexnet.onnx --variant salinet --at pool5 --lrn bp -o out",
        "model.onnx --variant desalinet --fused --choose class -o out",
    )
    sub.set_defaults(wrong=sub.error)
    _model_arguments(sub)
    sub.add_argument("--variant", required=True, choices=variants.VARIANTS, help="which of the eight")
    sub.add_argument(
        "--input", metavar="NAME", help="the input that x_hat belongs to (default: the only one)"
    )
    sub.add_argument("--lrn", choices=variants.LRN, help="reversal of LRN (default: the variant's own)")
    sub.add_argument("--target", choices=compiler.TARGETS, default="portable", help="where it shall run")
    sub.add_argument(
        "--precision",
        choices=(*compiler.PRECISIONS, "bf16"),  # the last is refused with its reason
        metavar="{fp32,fp16}",
        default="fp32",
        help="fp16: compute in float16 where that suits, and keep what comes back in its range",
    )
    help_packed = "packed: masks and switches cross in as few bits as they need"
    sub.add_argument("--bottleneck", choices=compiler.BOTTLENECKS, default="plain", help=help_packed)
    help_full = "turn a classifier's fully connected head into convolutions, so that any picture size runs"
    sub.add_argument("--fully-convolutional", action="store_true", help=help_full)
    sub.add_argument("--fused", action="store_true", help="one file in place of two")
    help_choose = "with --fused, p is chosen in the graph: the largest of y, or by an input `class`"
    sub.add_argument("--choose", choices=choice.CHOICES, help=help_choose)
    sub.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where the files go")


def _verify_arguments(command: Callable[..., argparse.ArgumentParser]) -> None:
    sub = command(
        "verify",
        _verify,
        "prove a compilation right on its own network, in float64",
        "out --variant desalinet",
        "out --model alexnet.onnx",
    )
    sub.add_argument("folder", metavar="FOLDER", help="where revgraph compile wrote")
    sub.add_argument("--model", metavar="MODEL", help="what it was compiled from, to check the outputs too")
    sub.add_argument(
        "--variant", choices=variants.VARIANTS, help="which compilation, where there are several"
    )
    sub.add_argument("--seed", type=_whole, default=0, metavar="N", help="of the random inputs")


def _compare_arguments(command: Callable[..., argparse.ArgumentParser]) -> None:
    sub = command(
        "compare",
        _compare,
        "hold two compilations of one network against each other",
        "torch.onnx keras.onnx",
        "torch.onnx keras.onnx holiday/ --variant salinet -o sheets",
        "squeezenet1_1 squeezenet1_1 cat.jpg --variant salinet --variant desalinet -o cat.png",
    )
    what = "an ONNX file, a network of `revgraph models`, or a folder that revgraph compile wrote"
    sub.add_argument("a", metavar="A", help=what)
    sub.add_argument("b", metavar="B", help="another of the same network; its channels may lie elsewhere")
    help_picture = "a picture, or a folder of them (default: one random input)"
    sub.add_argument("picture", metavar="PICTURE", nargs="*", help=help_picture)
    help_variant = "of both, or given twice (default: desalinet, or the folder's own)"
    sub.add_argument("--variant", choices=variants.VARIANTS, action="append", help=help_variant)
    sub.add_argument("--at", metavar="LAYER", action="append", help=f"of both, or given twice: {_LAYER}")
    sub.add_argument("--neuron", metavar="SPEC", default="max", help="chosen by what A makes of the input")
    sub.add_argument("--recipe", metavar="NAME_OR_FILE", help="how pictures are fed")
    sub.add_argument("--seed", type=_whole, metavar="N", default=0, help="of the random generator")
    help_output = "a picture, or a folder, of both images and their difference (default: none is drawn)"
    sub.add_argument("-o", "--output", metavar="PICTURE_OR_FOLDER", help=help_output)


def _run_arguments(command: Callable[..., argparse.ArgumentParser]) -> None:
    sub = command(
        "run",
        _run,
        "explain pictures: the input, x_hat and the saliency map side by side",
        "squeezenet1_1 cat.jpg -o cat.png",
        "out holiday/ --variant desalinet --neuron max --neuron class:285 -o explained",
    )
    sub.add_argument("model", metavar="MODEL_OR_FOLDER", help="as for compile, or a folder it wrote")
    sub.add_argument("picture", metavar="PICTURE", nargs="+", help="picture files, or folders of them")
    help_variant = "which variant (default: desalinet, or a folder's only one)"
    sub.add_argument("--variant", choices=variants.VARIANTS, help=help_variant)
    sub.add_argument("--at", metavar="LAYER", help=_LAYER)
    kinds = ", ".join(kind.usage for kind in neuron.KINDS.values())
    help_neuron = f"{kinds}, or file.npy; may be given several times (default: max)"
    sub.add_argument("--neuron", metavar="SPEC", action="append", help=help_neuron)
    help_recipe = "how pictures are fed (default: the model's own, else imagenet)"
    sub.add_argument("--recipe", metavar="NAME_OR_FILE", help=help_recipe)
    sub.add_argument("--seed", type=_whole, metavar="N", default=0, help="of the random generator")
    help_output = "a picture's path for one result, else a folder"
    sub.add_argument("-o", "--output", required=True, metavar="PICTURE_OR_FOLDER", help=help_output)


def _device(text: str) -> str:
    try:
        Device.of(text)
    except RevgraphError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0")
    return int(text)
