"""How well the inverses that were trained reconstruct held-out pictures. See README.md.

Needs no PyTorch: the forward network and its inverse are a pair of ONNX graphs like any other of revgraph's.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import bottleneck
import mirror
import numpy as np
import report
from bottleneck import Kept
from tqdm import tqdm

import revgraph
from revgraph import zoo
from revgraph.errors import RevgraphError
from revgraph.paper import sheet


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
        RevgraphError: Nothing was trained there, or a file of it cannot be read.
    """
    trained = report.Trained.all_in(folder)
    settings = json.loads((folder / "settings.json").read_text())
    apart, recipe = settings["held_out"], mirror.recipe_of(settings["model"])
    x = Kept(folder / "kept" / "test").read(slice(None), ["x"])["x"]
    known = Kept(folder / "kept" / "train").read(slice(None), ["x"])["x"].mean(axis=0)
    scale = distance(x)
    rows: list[report.Row] = [report.row("", report.UNINFORMED, "", measured(known - x, scale))]
    samples = x[: apart * len(zoo.SAMPLES) : apart]
    shown = {("", "the picture"): [report.image(recipe, each) for each in samples]}
    for one in tqdm(trained, desc="evaluated", disable=None):
        session = revgraph.Session(revgraph.load(one.folder))
        x_hat, of_another = reconstructions(session, x, apart)
        another = measured(of_another - x, scale)["l2"]
        rows.append(report.row(one.unpooling, one.given, one.seed, measured(x_hat - x, scale), another))
        firsts = x_hat[: apart * len(zoo.SAMPLES) : apart]
        shown.setdefault((one.unpooling, one.given), [report.image(recipe, each) for each in firsts])
    (folder / "results.csv").write_bytes(sheet.table(rows))
    print(report.errors(rows), report.differences(rows), sep="\n\n")
    report.draw(folder, trained, shown, settings)


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


# ----- Numbers -----


def distance(x: np.ndarray) -> float:
    """The mean Euclidean distance of two rows, by which Dosovitskiy and Brox divide errors."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    squares = (flat**2).sum(axis=1)
    between = np.sqrt(np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0))
    return float(between.sum() / (len(x) * (len(x) - 1)))


def measured(difference: np.ndarray, scale: float) -> dict[str, float]:
    """l2: the mean Euclidean norm of a row by the scale; squared: the mean of that ratio's square."""
    ratios = np.sqrt((difference.reshape(len(difference), -1).astype(np.float64) ** 2).sum(axis=1)) / scale
    return {"l2": float(ratios.mean()), "squared": float((ratios**2).mean())}


if __name__ == "__main__":
    sys.exit(main())
