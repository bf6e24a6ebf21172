"""Informed inverse networks (Sect. 3.3): trains them all, and evaluates them. See README.md."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product
from pathlib import Path

import bottleneck
import evaluate
import mirror
import numpy as np
import torch
from bottleneck import Kept
from crops import crops, digest, samples, split
from inverse import Inverse
from learn import Budget, Training
from mirror import KINDS, UNPOOLING
from tqdm import tqdm

from revgraph import picture
from revgraph.cli import options
from revgraph.errors import RevgraphError
from revgraph.pair import Compiled
from revgraph.picture_files import find_pictures
from revgraph.recipe import Recipe
from revgraph.writing import write_all

DECIDES = ("model", "at", "size", "crops", "held_out", "epochs", "batch", "rate")
"""The options on which each inverse depends, whichever others are trained."""


def main() -> int:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("pictures", nargs="+", help="files and folders; they are split by picture")
    made.add_argument(
        "-o", "--output", type=Path, required=True, help="folder; what is there is gone on with"
    )
    made.add_argument("--model", default="squeezenet1_1", metavar="FILE=RECIPE", help="or a recipe's network")
    made.add_argument("--at", default="fire9/concat", help="the layer y")
    made.add_argument("--size", type=options.positive, default=63, help="of the square crops, in pixels")
    made.add_argument("--crops", type=options.positive, default=60, help="of each picture to learn from")
    made.add_argument("--held-out", type=options.positive, default=8, help="crops of each other picture")
    made.add_argument("--epochs", type=options.positive, default=9, help="passes over the crops")
    made.add_argument("--batch", type=options.positive, default=32)
    made.add_argument("--rate", type=_rate, default=4e-3, help="Adam's, at its highest")
    made.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    made.add_argument("--unpooling", nargs="+", choices=UNPOOLING, default=list(UNPOOLING))
    made.add_argument("--seeds", type=options.whole, nargs="+", default=[0, 1, 2])
    made.add_argument("--threads", type=options.whole, default=0, help="0: PyTorch's choice")
    chosen = made.parse_args()
    try:
        train(chosen)
        evaluate.evaluate(chosen.output)
    except RevgraphError as error:
        print(f"inverse: error: {error}", file=sys.stderr)
        return 1
    return 0


def _rate(text: str) -> float:
    """What argparse makes of --rate."""
    if not 0 < (rate := float(text)) < 1:
        raise argparse.ArgumentTypeError("between 0 and 1")
    return rate


def train(chosen: argparse.Namespace) -> None:
    """Each kind of inverse with each seed, each into a folder of its own; those that are done stay."""
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    model, recipe = mirror.subject(chosen.model)
    pairs = {how: mirror.mirrored(model, chosen.at, chosen.size, how) for how in chosen.unpooling}
    informed = next(iter(pairs.values()))["both"]
    parts = split(find_pictures(chosen.pictures))
    if (crops := len(parts["train"]) * chosen.crops) < chosen.batch:
        what, why = f"cannot learn from {crops} crops", f"one batch has {chosen.batch}"
        raise RevgraphError(what, why, "more --crops, or a smaller --batch")
    _settle(chosen, parts, recipe, informed)
    kept = {part: _kept(chosen, part, paths, informed, recipe) for part, paths in parts.items()}
    unit = float(kept["train"].read(slice(None), ["x"])["x"].std())
    budget = Budget(chosen.epochs, chosen.batch, chosen.rate)
    for seed, how, kind in product(chosen.seeds, chosen.unpooling, chosen.kinds):
        folder = chosen.output / "inverses" / how / f"{kind}.{seed}"
        if not any(folder.glob("*.reversed.onnx")):
            folder.mkdir(parents=True, exist_ok=True)
            fresh = Inverse(pairs[how][kind], unit, fixed=how == "centre")
            training = Training(folder, fresh, kept["train"], kept["validation"], budget, seed)
            training.run(f"{how}, {folder.name}").compiled(kind).save(folder)


def _settle(
    chosen: argparse.Namespace, parts: Mapping[str, Sequence[Path]], recipe: Recipe, pair: Compiled
) -> None:
    """Write down what decides the result; refuse a folder where that was something else."""
    settings = {
        **{name: getattr(chosen, name) for name in DECIDES},
        "pictures": {part: len(paths) for part, paths in parts.items()},
        "pictures_sha256": digest(*chain(*parts.values())),
        "network_sha256": pair.metadata["source_sha256"],
        "recipe_sha256": recipe.digest,
    }
    place = chosen.output / "settings.json"
    if place.is_file():
        before = json.loads(place.read_text(encoding="utf-8"))
        if changed := [name for name in settings if settings[name] != before.get(name)]:
            what, why = f"cannot go on in '{chosen.output}'", f"other {', '.join(changed)} than before"
            raise RevgraphError(what, why, "another folder with -o, or the same settings")
    write_all({place: (json.dumps(settings, indent=2) + "\n").encode()})


def _kept(
    chosen: argparse.Namespace, part: str, paths: Sequence[Path], pair: Compiled, recipe: Recipe
) -> Kept:
    """What the forward network makes of the part's crops; scikit-image's pictures lead the test part."""
    shown = samples() if part == "test" else []
    each = chosen.crops if part == "train" else chosen.held_out
    count = (len(shown) + len(paths)) * each

    def inputs() -> Iterator[np.ndarray]:
        for seed, image in enumerate(chain(shown, map(picture.read, paths))):
            for crop in crops(image, each, chosen.size, seed):
                yield recipe.feed(crop, (chosen.size, chosen.size))

    shown_inputs = tqdm(inputs(), desc=part, total=count, disable=None)
    return bottleneck.keep(chosen.output / "kept" / part, pair, shown_inputs, count)


if __name__ == "__main__":
    sys.exit(main())
