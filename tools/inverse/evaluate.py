"""How well the inverses that were trained reconstruct held-out pictures. See README.md.

Needs no PyTorch: the forward network and its inverse are a pair of ONNX graphs like any other of revgraph's.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import bottleneck
import mirror
import numpy as np
import onnx
import report
from bottleneck import Kept
from report import Found
from tqdm import tqdm

import revgraph
from revgraph import zoo
from revgraph.errors import RevgraphError
from revgraph.pair import Compiled
from revgraph.paper.library import library


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path, help="what train.py wrote")
    try:
        evaluate(made.parse_args().folder)
    except RevgraphError as error:
        print(f"inverse: error: {error}", file=sys.stderr)
        return 1
    return 0


def evaluate(folder: Path) -> None:
    """Print the tables; write results.csv, sheet.png and curves.png into the folder.

    Raises:
        RevgraphError: Nothing was trained there, or a file of it is gone.
    """
    trained = report.trained_in(folder)
    try:
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        test, train = (Kept(folder / "kept" / part) for part in ("test", "train"))
    except OSError as error:
        what, why = f"cannot evaluate '{folder}'", f"'{error.filename}' is not there"
        raise RevgraphError(what, why, "train.py with the same options makes it again") from error
    apart, recipe = settings["held_out"], mirror.recipe_of(settings["model"])
    x = test.read(slice(None), ["x"])["x"]
    mean = train.read(slice(None), ["x"])["x"].mean(axis=0)
    scale = distance(x)
    samples = slice(0, apart * len(zoo.SAMPLES), apart)
    shown = {("the picture", ""): [report.image(recipe, each) for each in x[samples]]}
    found = [Found(report.UNINFORMED, errors(mean - x, scale, apart))]
    for one in tqdm(trained, desc="evaluated", disable=None):
        session = revgraph.Session(revgraph.load(one.folder))
        x_hat, of_another = reconstructions(session, x, apart)
        own, another = (errors(each - x, scale, apart) for each in (x_hat, of_another))
        found.append(Found(one, own, another, bits(session.pair)))
        drawn = [report.image(recipe, each) for each in x_hat[samples]]
        shown.setdefault((one.given, one.unpooling), drawn)
    report.write(folder, found, shown, settings)


def reconstructions(session: revgraph.Session, x: np.ndarray, apart: int) -> tuple[np.ndarray, np.ndarray]:
    """From y, and from the y of the crop `apart` rows before, another picture's, with x's own bottleneck."""
    y = np.concatenate([session.forward(x[part]).y for part in _parts(x)])
    found = []
    for part in _parts(x):
        trace = session.forward(x[part])
        found.append([session.reverse(trace, p[part]) for p in (y, np.roll(y, apart, axis=0))])
    x_hat, of_another = (np.concatenate(each) for each in zip(*found, strict=True))
    return x_hat, of_another


def _parts(x: np.ndarray) -> Iterator[slice]:
    """So many rows as are run at once."""
    return (slice(i, i + bottleneck.BATCH) for i in range(0, len(x), bottleneck.BATCH))


def bits(pair: Compiled) -> float:
    """What the bottleneck of one crop can say: a bit for each unit, log2 9 for each window of 3 x 3."""
    graph = pair.forward.graph
    pools = {
        node.name: onnx.helper.get_node_attr_value(node, "kernel_shape")
        for node in graph.node
        if node.op_type == "MaxPool"
    }
    total = 0.0
    for value in graph.output:
        layer, _, kind = value.name.rpartition("/")
        if value.name in pair.taps:
            size = math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])
            total += size * (math.log2(math.prod(pools[layer])) if kind == "switches" else 1)
    return total


def distance(x: np.ndarray) -> float:
    """The mean Euclidean distance of two crops, by which Dosovitskiy and Brox divide errors."""
    return float(library("scipy.spatial.distance").pdist(x.reshape(len(x), -1)).mean())


def errors(difference: np.ndarray, scale: float, apart: int) -> np.ndarray:
    """The Euclidean norm of each crop's difference, by the scale: (pictures, crops of each)."""
    flat = difference.reshape(len(difference), -1).astype(np.float64)
    return np.linalg.norm(flat, axis=1).reshape(-1, apart) / scale


if __name__ == "__main__":
    sys.exit(main())
