"""`revgraph segment`."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from revgraph import parallel, picture, picture_files, variants, writing
from revgraph.cli import experiment, options, printing
from revgraph.cli.command import Args, Command
from revgraph.cli.printing import Row
from revgraph.errors import naming
from revgraph.paper import segmentation
from revgraph.paper.segmentation import Settings

if TYPE_CHECKING:
    from PIL import Image

    from revgraph.paper.segmentation.segment import Segmentation
    from revgraph.paper.segmentation.truth import Case


def arguments(sub: argparse.ArgumentParser) -> None:
    help_picture = "picture files, or folders of them; with --manifest those to keep to (default: all of it)"
    options.path(sub, "picture", metavar="PICTURE", nargs="*", help=help_picture)
    truth = sub.add_mutually_exclusive_group()
    help_masks = "the masks, NAME.png or several in NAME/: 0 background, 255 foreground, 128 neither"
    options.path(truth, "--masks", metavar="FOLDER", folder=True, help=help_masks)
    help_manifest = "a list of image, mask and maybe class; a line for each mask, paths from its own folder"
    options.path(truth, "--manifest", metavar="CSV", help=help_manifest)
    help_method = "a variant, or the Gaussian blob; may be given several times"
    methods = f"{help_method} (default: salinet; with masks the paper's three and the baseline)"
    sub.add_argument("--method", choices=(*variants.VARIANTS, "baseline"), action="append", help=methods)
    options.experiment(sub)
    usual = Settings()
    help_shorter = "a picture's shorter side"
    sub.add_argument(
        "--shorter", metavar="PIXELS", type=options.side, default=usual.shorter, help=help_shorter
    )
    for name, known in {"selector": segmentation.SELECTORS, "solver": segmentation.SOLVERS}.items():
        listed = "; ".join(f"{key} ({what})" for key, what in known.items())
        sub.add_argument(f"--{name}", choices=known, default=getattr(usual, name), help=listed)
    help_smoothness = "boykov-jolly's energy of a border (OpenCV's GrabCut has 50 and no choice)"
    sub.add_argument(
        "--smoothness", metavar="ENERGY", type=options.number, default=usual.smoothness, help=help_smoothness
    )
    help_blur = "beyond the paper: the standard deviation of a blur of the maps, in pixels"
    sub.add_argument("--blur", metavar="PIXELS", type=options.number, default=usual.blur, help=help_blur)
    help_centred = "beyond the paper: maps weighted towards the middle"
    sub.add_argument("--centred", action="store_true", help=help_centred)
    help_shuffled = (
        "with masks: also cut each picture by another one's map, which leaves the bias to the middle"
    )
    sub.add_argument("--shuffled", action="store_true", help=help_shuffled)
    options.output(sub, "FOLDER")


def run(args: Args) -> None:
    from revgraph.paper.segmentation import truth

    if not args.picture and not args.manifest:
        args.wrong("name pictures, or a --manifest")
    if args.shuffled and not args.masks and not args.manifest:
        args.wrong("argument --shuffled: needs --masks or --manifest")
    settings = Settings(args.shorter, args.selector, args.blur, args.centred, args.solver, args.smoothness)
    if args.manifest:
        cases = truth.from_manifest(Path(args.manifest), [Path(path) for path in args.picture])
        _measure(args, cases, settings)
    elif args.masks:
        cases = truth.from_folder(picture_files.find_pictures(args.picture), Path(args.masks))
        _measure(args, cases, settings)
    else:
        _cut_out(args, picture_files.find_pictures(args.picture), settings)


def _cut_out(args: Args, pictures: Sequence[Path], settings: Settings) -> None:
    """The foreground of pictures: a mask and an overlay for each, and for each method."""
    from revgraph.paper.segmentation import segment, truth
    from revgraph.paper.segmentation.pictures import overlay

    subject, methods = experiment.subject(args, threads=1), list(dict.fromkeys(args.method or ["salinet"]))

    def of(source: Path) -> "tuple[Path, Image.Image, list[Segmentation]]":
        image = picture.read(source)
        with naming(source):
            return source, image, [segment.segment(subject, method, image, settings) for method in methods]

    cut = parallel.in_order(of, pictures, parallel.cores())
    ends = [f".{method}.{what}.png" for method in methods for what in ("mask", "overlay")]
    paths = iter(picture_files.paths_in(Path(args.output), pictures, ends))
    rows: list[Row] = []
    with writing.staging() as stage:
        for source, image, cuts in printing.bar(args, cut, len(pictures)):
            for method, found in zip(methods, cuts, strict=True):
                mask = truth.resized(found.mask, (image.height, image.width))
                drawn = {"mask": picture.image_of(mask), "overlay": overlay(image, mask)}
                for what, path in zip(drawn, paths, strict=False):
                    stage(path).write_bytes(picture.encode(drawn[what], path))
                    rows.append(
                        {
                            "path": str(path),
                            "picture": str(source),
                            "method": segment.title(method),
                            "what": what,
                            "selector": settings.selector,
                            "label": found.saliency.label,
                            "foreground": round(float(mask.mean()), 4),
                        }
                    )
                if not found.seeds.any():
                    args.notes.append(
                        f"nothing of '{source}' is foreground: the map of {method} is one value"
                    )
    shown = [[row["path"], f"{row['foreground']:.1%} foreground", row["label"] or ""] for row in rows]
    printing.results(args, rows, shown)


def _measure(args: Args, cases: "Sequence[Case]", settings: Settings) -> None:
    """The table of a data set, from where it was stopped."""
    from revgraph.paper.segmentation import report, segment, table

    methods = list(dict.fromkeys(args.method or segment.METHODS))
    folder = Path(args.output)
    measured = table.Run(experiment.subject(args, threads=1), cases, methods, settings, args.shuffled, folder)
    if len(measured.left) < len(cases):
        there = len(cases) - len(measured.left)
        args.notes.append(f"{there} of {len(cases)} pictures were there already")
    for _ in printing.bar(args, measured.go(), len(measured.left)):
        pass
    found = report.write(measured, folder)
    if args.json:
        everything = {"rows": found.means, "differences": found.differences}
        printing.as_json(everything | {"settings": dataclasses.asdict(settings)})
        return
    printing.columns(found.shown(), report.HEADS)
    for path, what in found.files.items():
        printing.line(f"{path}  {what}")


COMMAND = Command(
    "cut out the foreground of pictures, and measure how well against masks (Sect. 3.5)",
    (
        "cat.jpg -o cut",
        "photos/ --masks masks/ --json -o table",
        "--manifest data/manifest.csv --model resnet18.onnx --recipe imagenet -o table",
        "photos/ --method desalinet --blur 16 --centred --solver boykov-jolly -o cut",
    ),
    arguments,
    run,
)
