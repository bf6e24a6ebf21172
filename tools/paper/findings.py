"""Each finding of Sects. 3.1 to 3.4 as a number, over pictures, with an interval. See README.md."""

import argparse
import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tabulate import tabulate

from revgraph import neuron, picture, recipe, zoo
from revgraph.explain import Explanation
from revgraph.paper import measure, randomise
from revgraph.paper.library import library
from revgraph.paper.selectivity import agreement, reversed_by_choice
from revgraph.paper.subject import STRONGEST, Subject
from revgraph.variants import NAMED, VARIANTS

COLUMNS = ("section", "finding", "network", "pictures", "mean", "low", "high", "agrees")

RECTIFIED, NOT = ("desalinet", "deconvnet"), ("salinet", "identity")


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("data", type=Path, help="a folder with manifest.csv: columns image and mask")
    made.add_argument("networks", nargs="+", metavar="FILE=RECIPE", help="or the name of a recipe's network")
    made.add_argument("--pictures", type=int, default=50, help="so many, evenly spread")
    made.add_argument("--lrn", action="store_true", help="the reversal of LRN alone, whatever the weights")
    made.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "findings.csv")
    chosen = made.parse_args()
    with (chosen.data / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        listed = [row for row in csv.DictReader(stream) if "ECSSD" in row["source"]]
    every = [listed[i] for i in np.linspace(0, len(listed) - 1, chosen.pictures).astype(int)]
    pairs = [(picture.read(chosen.data / r["image"]), picture.read(chosen.data / r["mask"])) for r in every]
    rows = []
    for given in chosen.networks:
        subject = subject_of(given)
        found = lrn(subject, pairs) if chosen.lrn else findings(subject, pairs)
        rows += [row | {"network": subject.name} for row in found]
        print(side_by_side(rows), flush=True)
        with chosen.output.open("w", newline="", encoding="utf-8") as stream:
            table = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(
                {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in r.items()} for r in rows
            )


def side_by_side(rows: list[dict[str, object]]) -> str:
    """A line for each finding, a column for each network: the mean, its interval, and whether it agrees."""
    table: dict[tuple[object, object], list[str]] = {}
    for r in rows:
        cell = f"{r['mean']:.2f} ({r['low']:.2f} to {r['high']:.2f}), {r['agrees']}"
        table.setdefault((r["section"], r["finding"]), []).append(cell)
    names = dict.fromkeys(str(r["network"]) for r in rows)
    lines = [[*key, *cells] for key, cells in table.items()]
    return tabulate(lines, ["Sect.", "finding", *names], tablefmt="github", disable_numparse=True)


def subject_of(given: str) -> Subject:
    file, _, name = given.partition("=")
    chosen = recipe.load(name or file)
    path = Path(file) if name else zoo.model_path(chosen)
    return Subject(path, path.stem, chosen)


Pairs = list[tuple[Image.Image, Image.Image]]
Finding = dict[str, object]


def findings(subject: Subject, pairs: Pairs) -> Iterator[Finding]:
    """A row for each; what the paper says is what is expected of the mean."""
    at = subject.layers
    edges = {
        (variant, layer): each(subject, pairs, variant, layer, edges_of)
        for layer in dict.fromkeys((at.middle, at.logits))
        for variant in (VARIANTS if layer == at.logits else NAMED)
    }

    def shown(variant: str, layer: str = at.logits) -> np.ndarray:
        return edges[variant, layer]

    def mean(names: tuple[str, ...], end: str = "") -> np.ndarray:
        return np.mean([shown(name + end) for name in names], axis=0)

    gain = np.mean([mean(RECTIFIED, end) - mean(NOT, end) for end in ("", "-centre")], axis=0)
    yield row("3.1", "rectifying what comes back shows more edges", gain, above)
    yield row(
        "3.1",
        "switches show more than the centre (DeSaliNet)",
        shown("desalinet") - shown("desalinet-centre"),
        above,
    )
    yield row(
        "3.1",
        "DeSaliNet to the centre shows more than DeConvNet",
        shown("desalinet-centre") - shown("deconvnet"),
        above,
    )
    polarity = shown("desalinet-centre") - shown("salinet")
    yield row(
        "3.1", "polarity matters more than switches (DeSaliNet to the centre over SaliNet)", polarity, above
    )
    yield row("3.2", "DeSaliNet shows more than SaliNet", shown("desalinet") - shown("salinet"), above)
    gaps = [shown("desalinet", layer) - shown("deconvnet", layer) for layer in (at.logits, at.middle)]
    yield row("3.2", "DeSaliNet shows more than DeConvNet", gaps[0], above)
    yield row("3.2", "and the more so the deeper the layer", gaps[0] - gaps[1], above)
    for method in NAMED:
        same = {
            layer: np.array([strongest_and_another(subject, image, method, layer) for image, _ in pairs])
            for layer in (at.middle, at.logits)
        }
        name = f"({method})"
        yield row("3.3", f"another neuron gives much the same map {name}", same[at.logits], much)
        yield row(
            "3.3", f"and the more so the deeper the layer {name}", same[at.logits] - same[at.middle], above
        )
    yield row(
        "3.3", "the extent is the architecture's: random weights leave it", extent(subject, pairs), much
    )
    inside = {m: each(subject, pairs, m, at.logits, foreground) for m in NAMED}
    for method in ("salinet", "desalinet"):
        yield row("3.3", f"the foreground stands out (AUC - 1/2, {method})", inside[method] - 0.5, above)
        more = inside[method] - inside["deconvnet"]
        yield row("3.3", f"and more than by DeConvNet (AUC, {method})", more, above)
    for method in ("desalinet", "deconvnet"):
        random = each(subject, pairs, method, at.logits, edges_of, MIXTURE)
        yield row("3.4", f"random positive p shows the picture's edges ({method})", random, above)


def lrn(subject: Subject, pairs: Pairs) -> Iterator[Finding]:
    """Whether it matters how local response normalisation is reversed."""
    for method in NAMED:
        values = [
            measure.correlation(
                *(
                    subject.explain(image, method, subject.layers.pool, STRONGEST, lrn=way)[0].x_hat
                    for way in WAYS
                )
            )
            for image, _ in pairs
        ]
        yield row("3.1", f"LRN by BP or identity: much the same image ({method})", np.array(values), much)


WAYS = ("identity", "bp")

MIXTURE = (neuron.parse("mixture"),)


def each(
    subject: Subject,
    pairs: Pairs,
    variant: str,
    at: str,
    number: Callable[..., float],
    neurons: tuple[neuron.Neuron, ...] = STRONGEST,
) -> np.ndarray:
    """A number of each picture's explanation."""
    return np.array(
        [number(subject, subject.explain(image, variant, at, neurons)[0], mask) for image, mask in pairs]
    )


def edges_of(subject: Subject, found: Explanation, mask: Image.Image) -> float:
    return measure.edges(found.x_hat, found.crop)


def foreground(subject: Subject, found: Explanation, mask: Image.Image) -> float:
    """How often a pixel of the foreground has more than one of the background."""
    size = subject.explainer("desalinet", subject.layers.logits).size
    inside = np.asarray(subject.recipe.crop(mask, size).convert("L")).ravel() > 127
    saliency = picture.saliency(found.x_hat).ravel()
    return area_under_curve(saliency, inside)


def strongest_and_another(subject: Subject, image: Image.Image, method: str, at: str) -> float:
    found = agreement(reversed_by_choice(subject, image, method, at))
    return found["strongest and another, maps by rank"]


def extent(subject: Subject, pairs: Pairs) -> np.ndarray:
    """Overlap of the boxes about x_hat without a bottleneck: trained, and with random weights."""
    at, layers = subject.layers.pool, randomise.products(subject.path)
    random = subject.of(randomise.randomised(subject.model, layers, size=0.01))
    overlaps = []
    for image, _ in pairs:
        (found,) = subject.explain(image, "desalinet", at, STRONGEST)
        same = [found.peak.neuron]
        boxes = [
            measure.box(picture.saliency(each.explain(image, "identity-centre", at, same)[0].x_hat))
            for each in (subject, random)
        ]
        overlaps.append(overlap(*boxes))
    return np.array(overlaps)


def overlap(a: measure.Box, b: measure.Box) -> float:
    """The part that two boxes share of what either covers."""
    shared = math.prod(max(min(a[i + 1], b[i + 1]) - max(a[i], b[i]), 0) for i in (0, 2))
    both = sum((box[1] - box[0]) * (box[3] - box[2]) for box in (a, b)) - shared
    return shared / both if both else 0.0


def area_under_curve(saliency: np.ndarray, inside: np.ndarray) -> float:
    """How often a pixel inside has more than one outside, ties counting half: that of the ROC curve."""
    ranks, n = library("scipy.stats").rankdata(saliency), int(inside.sum())
    if n in (0, inside.size):
        return 0.5
    return float((ranks[inside].sum() - n * (n + 1) / 2) / (n * (inside.size - n)))


def above(low: float, high: float) -> str:
    return "yes" if low > 0 else "no" if high < 0 else "open"


def much(low: float, high: float) -> str:
    return "yes" if low > 0.5 else "no" if high < 0.5 else "open"


def row(section: str, finding: str, values: np.ndarray, agrees: Callable[[float, float], str]) -> Finding:
    """The mean over the pictures, and its 95 % interval."""
    low, high = measure.interval(values)
    return {
        "section": section,
        "finding": finding,
        "pictures": len(values),
        "mean": float(values.mean()),
        "low": low,
        "high": high,
        "agrees": agrees(low, high) if values.any() else "all zero",
    }


if __name__ == "__main__":
    main()
