"""Parts by picture, and crops of pictures."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from crops import SHARES, crops, split
from PIL import Image

from revgraph.errors import RevgraphError


def files(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{i:02}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.new("RGB", (9, 7), (i, 2 * i, 0)).save(path)
    return paths


def test_every_picture_is_in_one_part_whatever_its_name(tmp_path: Path) -> None:
    paths = files(tmp_path, 20)
    parts = split(paths)
    assert {name: len(found) for name, found in parts.items()} == {"train": 14, "validation": 2, "test": 4}
    assert sorted(chain(*parts.values())) == paths
    assert split(paths[::-1]) == parts


def test_a_copy_of_a_picture_is_left_out(tmp_path: Path) -> None:
    paths = files(tmp_path, 20)
    copies = [path.with_name(f"copy_of_{path.name}") for path in paths[:3]]
    for path, copy in zip(paths, copies, strict=False):
        copy.write_bytes(path.read_bytes())
    parts = split(paths + copies)
    assert [len(found) for found in parts.values()] == [14, 2, 4]
    contents = {name: {path.read_bytes() for path in found} for name, found in parts.items()}
    assert contents == {name: {path.read_bytes() for path in found} for name, found in split(paths).items()}


def test_too_few_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RevgraphError, match=r"^cannot split the pictures: 2 different pictures leave one of"):
        split(files(tmp_path, 2))
    assert sum(SHARES.values()) == pytest.approx(1)


def test_the_first_crop_is_the_middle_and_the_others_lie_inside(tmp_path: Path) -> None:
    columns = np.tile(np.arange(80, dtype=np.uint8), (40, 1))
    image = Image.fromarray(columns)
    first, *others = (np.asarray(crop)[..., 0].astype(int) for crop in crops(image, 5, 40, seed=3))
    np.testing.assert_array_equal(first, columns[:, 20:60])
    for i, crop in enumerate(others, 1):
        steps = np.diff(crop[20])
        assert crop.shape == (40, 40)
        assert (steps <= 0).all() if i % 2 else (steps >= 0).all()  # every other is mirrored
        assert 0.3 * 40 < np.ptp(crop) <= 40
    again = [np.asarray(crop) for crop in crops(image, 5, 40, seed=3)]
    np.testing.assert_array_equal(again[4][..., 0], others[3])
