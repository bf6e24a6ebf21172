"""Draw one network's reversed image as computed from every exporter's file: they should look the same."""

import json
import sys
from pathlib import Path

import numpy as np

import revgraph
from revgraph import panels, picture, variants

EXPORTED = Path(__file__).parents[2] / "tests" / "exported"


def draw(network: str, variant: str) -> None:
    images, titles = [], []
    for manifest in sorted(EXPORTED.glob("*/manifest.json")):
        file = manifest.with_name(f"{network}.onnx")
        axes = (
            (2, 0, 1) if json.loads(manifest.read_text(encoding="utf-8"))["layout"] == "NHWC" else (0, 1, 2)
        )
        with np.load(file.with_suffix(".npz")) as arrays:
            x, p = arrays["x"][:1], arrays["p"][:1]
        session = revgraph.Session(revgraph.compile(file, variant=variant))
        x_hat = session.reverse(session.forward(x), p)
        if not images:
            low, high = x.min(), x.max()
            images.append(picture.image_of((x[0].transpose(axes) - low) / (high - low)))
            titles.append("input")
        images.append(picture.image_of(picture.tone_map(x_hat[0].transpose(axes))))
        titles.append(manifest.parent.name)
    caption = f"{variants.TITLES[variant]} of the network '{network}', from each exporter's file"
    path = Path(__file__).with_suffix(".webp")
    path.write_bytes(picture.encode(panels.row(images, titles, caption), path))


if __name__ == "__main__":
    draw(*(sys.argv[1:] or ("inception", "desalinet")))
