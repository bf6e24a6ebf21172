"""A network and a data set for all tests of the segmentation."""

from pathlib import Path

import pytest
from networks import alexnet_like
from PIL import Image
from scenes import scene

from revgraph import recipe
from revgraph.paper.subject import Subject


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject(alexnet_like(), "net", recipe.load("imagenet"))


@pytest.fixture
def data(tmp_path) -> Path:
    """Four scenes with masks, in folders and in a manifest."""
    for folder in ("pictures", "masks"):
        (tmp_path / folder).mkdir()
    rows = []
    for i, size in enumerate(((60, 80), (70, 60), (64, 64), (50, 90))):
        image, disc = scene(*size, seed=i)
        image.save(tmp_path / f"pictures/{i}.png")
        Image.fromarray(disc).save(tmp_path / f"masks/{i}.png")
        rows.append(f"pictures/{i}.png,masks/{i}.png,somewhere")
    (tmp_path / "manifest.csv").write_text("image,mask,source\n" + "\n".join(rows) + "\n")
    return tmp_path
