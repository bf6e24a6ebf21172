"""Make the picture at the top of README.md: the demo's row of variants, as a small file."""

import tempfile
from pathlib import Path

from PIL import Image

from revgraph.demo import demo

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        row = next(path for path, _ in demo(Path(folder)) if path.name.endswith(".row.png"))
        Image.open(row).save(Path(__file__).with_suffix(".webp"), quality=70, method=6)
