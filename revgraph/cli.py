"""The command line: parse, call one function, print."""

import argparse
import asyncio
import contextlib
import dataclasses
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

import revgraph
from revgraph import (
    arguments,
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
    paper,
    parallel,
    picture,
    recipe,
    variants,
    verify,
    zoo,
)
from revgraph.dataset import source
from revgraph.dataset.explaining import Asked, Means
from revgraph.dataset.run import Run
from revgraph.errors import RevgraphError, missing_extra
from revgraph.pair import Compiled
from revgraph.runtime import Device
from revgraph.session import Session
from revgraph.weights import LightModel

if TYPE_CHECKING:
    from PIL import Image

    from revgraph.paper.search import Found
    from revgraph.paper.segmentation.table import Segmentation, Settings
    from revgraph.paper.segmentation.truth import Case
    from revgraph.paper.sheet import Figure
    from revgraph.paper.subject import Subject

Args = argparse.Namespace
Written = Mapping[Path, tuple[files.Content, str]]
"""Files to write, with a line on some of them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        0 done, 1 this input cannot be done, or is not right, 130 interrupted. Wrong usage exits with 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of layers may hold what a terminal's code page lacks
            stream.reconfigure(errors="replace")
    args = argparse.Namespace(
        **{**arguments.EVERYWHERE, **vars(arguments.parser(COMMANDS).parse_args(argv))}, notes=[]
    )
    try:
        status = args.command(args)
    except RevgraphError as error:
        print(f"revgraph: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the results has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("revgraph: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except OSError as error:
        known = RevgraphError(
            f"cannot use '{error.filename}'", error.strerror or str(error), "name another path"
        )
        print(f"revgraph: error: {known}", file=sys.stderr)
        return 1
    _say_notes(args)
    return int(status or 0)


def _say_notes(args: Args) -> None:
    while args.notes:
        note = args.notes.pop(0)
        if not args.quiet:
            print(f"revgraph: note: {note}", file=sys.stderr)


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
        for source in _bar(args, pictures, len(pictures)):
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
    return compiled, _recipe(args, compiled.metadata.get("recipe"))


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
    bottleneck = vars(args).get("bottleneck", "plain")
    return revgraph.compile(
        _model(args.model), variant=variant, at=args.at, target=target, bottleneck=bottleneck
    )


def _recipe(args: Args, own: str | None) -> recipe.Recipe:
    """The recipe asked for, else what the model's metadata say, else ImageNet's usual one."""
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
    explainer = explain.Explainer(a, _recipe(args, a.pair.metadata.get("recipe"))) if args.picture else None
    pictures: list[Path | None] = [*explain.find_pictures(args.picture)] or [None]
    files_named = [path for path in pictures if path is not None]
    paths = explain.output_paths(Path(args.output), files_named, "compare", [chosen]) if args.output else []
    names = _told_apart(a.pair, b.pair)
    rows: list[dict[str, Any]] = []
    with files.staging() as stage:
        for i, source in enumerate(_bar(args, pictures, len(pictures))):
            image = None if source is None else picture.read(source)
            x = explainer.feed(image) if explainer and image else compare.random_input(a, rng)
            found = compare.compare(a, b, x, chosen, rng)
            row = {"picture": str(source or "a random input"), "neuron": str(chosen), **_figures(found)}
            if paths and explainer and image:
                shown = explainer.rgb(found.x_hats[0][0]), explainer.rgb(found.x_hats[1][0])
                caption = f"cosine {found.cosine:.4f}, relative error {found.error:.2g}"
                drawn = picture.compare(explainer.crop(image), shown, names, caption)
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


def _figure(args: Args) -> None:
    from revgraph.paper import measure

    every = args.figure == "all"
    subject = _subject(args)
    names = [name for name in paper.FIGURES if every or name == args.figure]
    if every and not subject.normalises:
        names.remove("lrn")
        args.notes.append(f"no figure lrn: '{subject.name}' has no local response normalisation")
    given = explain.find_pictures(args.picture)
    pictures = [(path.stem, picture.read(path)) for path in given]
    pictures = pictures or [(name, zoo.sample(name)) for name in zoo.SAMPLES]
    rows: list[dict[str, Any]] = []
    for name in tqdm(names, unit="figure", disable=None if every and not args.quiet else True):
        found = importlib.import_module(f"revgraph.paper.{name}").figure(subject, pictures)
        path = Path(args.output, f"{subject.name}.{name}.png") if every else Path(args.output)
        rows += _report_figure(path, found, paper.FIGURES[name])
        args.notes += [
            f"in '{path}' {row['picture']} by {row.get('method') or row.get('variant') or row.get('image')} "
            f"is all zero: {measure.VANISHED} {row[measure.VANISHED]}"
            for row in found.numbers
            if row.get(measure.VANISHED)
        ]
    _print(args, rows, lambda row: list(row.values()))


def _search(args: Args) -> None:
    from revgraph.paper import search

    subject, variant, pictures = _subject(args, threads=1), args.variant, source.listed(args.input)
    looked = search.look(subject, variant, args.at, args.channel, pictures)
    hits = search.strongest(_noting(args, _bar(args, looked, len(pictures))), args.top)
    found = search.figure(subject, variant, args.at, args.channel, hits)
    _print(
        args, _report_figure(Path(args.output), found, "the strongest first"), lambda row: list(row.values())
    )


def _batch(args: Args) -> None:
    compiled, chosen = _compilation(args)
    _note_beyond_paper(args, compiled)
    neurons = tuple(neuron.parse(spec) for spec in args.neuron or ["max"])
    pictures = source.listed(args.input)
    asked = Asked(compiled, chosen, neurons, args.seed, args.maps)
    run = Run(asked, pictures, args.output)
    left = sum(len(share.paths) for share in run.left)
    if left < len(pictures):
        args.notes.append(f"{len(pictures) - left} of {len(pictures)} pictures were there already")
    means = Means(args.engine, args.device, args.threads or 1, args.batch or 0)
    with _bar(args, None, left) as bar:
        for count in run.go(means):
            bar.update(count)
    rows = {
        "path": args.output,
        "pictures": len(pictures),
        "rows": len(pictures) * len(neurons),
        "errors": run.finish(),
    }
    if rows["errors"]:
        args.notes.append(
            f"{_count(rows['errors'], 'rows')} of {rows['rows']} say in the column error why there is no more"
        )
    _print(args, [rows], lambda row: [row["path"], *(_count(row[n], n) for n in row if n != "path")])


def _noting(args: Args, found: "Iterable[Found]") -> "Iterator[Found]":
    """The same, with a note on what could not be read."""
    refused = []
    for each in found:
        if isinstance(each, RevgraphError):
            refused.append(each)
        yield each
    if refused:
        args.notes.append(f"{_count(len(refused), 'pictures')} left out: {refused[0]}")


def _segment(args: Args) -> None:
    from revgraph.paper.segmentation import table, truth

    if not args.picture and not args.manifest:
        args.wrong("name pictures, or a --manifest")
    if args.shuffled and not args.masks and not args.manifest:
        args.wrong("argument --shuffled: needs --masks or --manifest")
    settings = table.Settings(
        args.shorter, args.selector, args.blur, args.centred, args.solver, args.smoothness
    )
    if args.manifest:
        cases = truth.from_manifest(Path(args.manifest), [Path(path) for path in args.picture])
        _segment_all(args, cases, settings)
    elif args.masks:
        cases = truth.from_folder(explain.find_pictures(args.picture), Path(args.masks))
        _segment_all(args, cases, settings)
    else:
        _cut_out(args, explain.find_pictures(args.picture), settings)


def _cut_out(args: Args, pictures: Sequence[Path], settings: "Settings") -> None:
    """The foreground of pictures: a mask and an overlay for each, and for each method."""
    from revgraph.paper.segmentation import table, truth
    from revgraph.paper.segmentation.pictures import overlay

    subject, methods = _subject(args, threads=1), list(dict.fromkeys(args.method or ["salinet"]))

    def of(source: Path) -> "tuple[Path, Image.Image, list[Segmentation]]":
        image = picture.read(source)
        with table.naming(source):
            return source, image, [table.segment(subject, method, image, settings) for method in methods]

    cut = parallel.in_order(of, pictures, parallel.cores())
    ends = [f".{method}.{what}.png" for method in methods for what in ("mask", "overlay")]
    paths = iter(explain.paths_in(Path(args.output), pictures, ends))
    rows: list[dict[str, Any]] = []
    with files.staging() as stage:
        for source, image, cuts in _bar(args, cut, len(pictures)):
            for method, found in zip(methods, cuts, strict=True):
                mask = truth.resized(found.mask, (image.height, image.width))
                drawn = {"mask": picture.image_of(mask), "overlay": overlay(image, mask)}
                for what, path in zip(drawn, paths, strict=False):
                    stage(path).write_bytes(picture.encode(drawn[what], path))
                    rows.append(
                        {
                            "path": str(path),
                            "picture": str(source),
                            "method": table.title(method),
                            "what": what,
                            "selector": settings.selector,
                        }
                        | {"label": found.saliency.label, "foreground": round(float(mask.mean()), 4)}
                    )
                if not found.seeds.any():
                    args.notes.append(
                        f"nothing of '{source}' is foreground: the map of {method} is one value"
                    )
    _print(args, rows, lambda row: [row["path"], f"{row['foreground']:.1%} foreground", row["label"] or ""])


def _segment_all(args: Args, cases: "Sequence[Case]", settings: "Settings") -> None:
    """The table of a data set, from where it was stopped."""
    from revgraph.paper.segmentation import report, table

    methods = list(dict.fromkeys(args.method or table.METHODS))
    folder = Path(args.output)
    run = table.Run(_subject(args, threads=1), cases, methods, settings, args.shuffled, folder)
    if len(run.left) < len(cases):
        args.notes.append(f"{len(cases) - len(run.left)} of {len(cases)} pictures were there already")
    for _ in _bar(args, run.go(), len(run.left)):
        pass
    found = report.write(run, folder)
    if args.json:
        everything = {"rows": found.means, "differences": found.differences}
        print(json.dumps(everything | {"settings": dataclasses.asdict(settings)}, indent=2))
        return
    print(tabulate(found.shown(), report.HEADS, tablefmt="plain", disable_numparse=True))
    for path, what in found.files.items():
        print(f"{path}  {what}")


def _package(args: Args) -> None:
    if args.choose and args.stack != "triton":
        args.wrong("argument --choose: needs --for triton, for others are told with each request")
    written = {"triton": _for_triton, "kserve": _for_kserve, "web": _for_web}[args.stack](args)
    _report_written(args, written)


def _for_triton(args: Args) -> Written:
    from revgraph.serving import triton

    compiled = _compiled(args)
    _note_beyond_paper(args, compiled)
    return triton.repository(Path(args.output), compiled, args.choose or "max", args.batch, args.device)


def _for_kserve(args: Args) -> Written:
    from revgraph.serving.kserve import container

    compiled, chosen = _compilation(args)
    _note_beyond_paper(args, compiled)
    return container.contents(Path(args.output), compiled, args.recipe, chosen, args.batch, args.device)


def _for_web(args: Args) -> Written:
    from revgraph.serving import web

    compilations = _every_compilation(args)
    _note_beyond_paper(args, compilations[0])
    chosen = _recipe(args, compilations[0].metadata.get("recipe"))
    return web.site(Path(args.output), compilations, chosen)


def _every_compilation(args: Args) -> list[Compiled]:
    """A folder's compilations, or a model's three named variants; or the one asked for."""
    if os.path.isdir(args.model):
        return pair.load_all(args.model, args.variant)
    names = [args.variant] if args.variant else demo.ROW
    return [revgraph.compile(_model(args.model), variant=name, at=args.at, target="web") for name in names]


def _report_written(args: Args, written: Written) -> None:
    """Write files, and a line on each that has one."""
    files.write_all({path: content for path, (content, _) in written.items()})
    _print(
        args,
        [{"path": str(path), "what": what} for path, (_, what) in written.items() if what],
        lambda row: list(row.values()),
    )


def _serve(args: Args) -> None:
    try:
        from revgraph.serving.kserve import server
    except ImportError as error:
        raise missing_extra("cannot serve", str(error.name), "serve") from error
    from revgraph.serving.kserve.service import Service

    compiled, chosen = _compilation(args)
    _note_beyond_paper(args, compiled)
    session = Session(compiled, threads=args.threads, device=args.device)
    service = Service(session, _explainer(args, session, chosen), args.batch)
    service.warm_up()

    def started(http: str, grpc: str) -> None:
        rows = [{"address": http, "what": "HTTP"}, {"address": grpc, "what": "gRPC"}]
        _print(args, rows, lambda row: list(row.values()))
        sys.stdout.flush()
        _say_notes(args)

    limits = server.Limits(args.batch, args.max_bytes, args.time_limit)
    asyncio.run(server.serve(service, args.host, args.http_port, args.grpc_port, limits, started))


def _explainer(args: Args, session: Session, chosen: recipe.Recipe) -> explain.Explainer | None:
    """What feeds pictures to a network and draws x_hat; None where it takes none, and no recipe says so."""
    try:
        return explain.Explainer(session, chosen)
    except explain.NoPicturesError as error:
        if args.recipe:
            raise
        args.notes.append(f"tensors are taken alone, no pictures: {error}")
        return None


def _subject(args: Args, threads: int = 0) -> "Subject":
    """The network of an experiment, and its recipe; so many threads for a run of it unless told."""
    from revgraph.paper.subject import Subject

    path = _model(args.model)
    source, name, _ = compiler.read_source(path)
    noted = {entry.key: entry.value for entry in source.model.metadata_props}
    chosen = _recipe(args, noted.get(pair.PREFIX + "recipe"))
    return Subject(path, name, chosen, args.threads or threads, args.device)


def _report_figure(path: Path, found: "Figure", what: str) -> list[dict[str, Any]]:
    """Write a figure and its numbers; a row for each file."""
    from revgraph.paper import sheet

    table = path.with_suffix(".csv")
    files.write_all({path: picture.encode(found.image, path), table: sheet.table(found.numbers)})
    return [{"path": str(path), "what": what}, {"path": str(table), "what": "its numbers"}]


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
    if args.web:
        _demo_page(args)
        return
    paths = demo.demo(Path(args.output), threads=args.threads, device=args.device)
    _print(args, [{"path": str(path), "what": what} for path, what in paths], lambda row: list(row.values()))


def _demo_page(args: Args) -> None:
    from revgraph.serving import web

    folder = Path(args.output)
    with web.server(folder, args.port) as server:
        _report_written(args, web.example(folder))
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def _doctor(args: Args) -> int:
    findings = list(doctor.examine())
    rows = [dataclasses.asdict(found) for found in findings]
    if not args.json:
        rows = [row | {"works": "yes" if row["works"] else "no"} for row in rows]
    _table(args, rows, ["what", "works", "about"])
    return 0 if any(f.works for f in findings if f.what in ("cpu", "cuda")) else 1


# ---------------------------------------------------------------- printing


def _bar(args: Args, items: Iterable[Any] | None, total: int) -> Any:
    """How far it is with so many pictures, where someone looks."""
    return tqdm(items, total=total, unit="picture", disable=True if args.quiet else None)


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


COMMANDS = {
    "compile": _compile,
    "run": _run,
    "inspect": _inspect,
    "verify": _verify,
    "compare": _compare,
    "variants": _variants,
    "models": _models,
    "doctor": _doctor,
    "demo": _demo,
    "figure": _figure,
    "search": _search,
    "segment": _segment,
    "batch": _batch,
    "package": _package,
    "serve": _serve,
}
