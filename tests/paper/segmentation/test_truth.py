"""Masks found and read, and scores by hand."""

import numpy as np
import pytest
from PIL import Image

from revgraph import RevgraphError
from revgraph.paper.segmentation import truth


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
def test_masks_of_several_modes_are_one(tmp_path, mode):
    values = np.zeros((10, 12), np.uint8)
    values[2:5, 3:9] = 255
    Image.fromarray(values).convert(mode).save(tmp_path / "m.png")
    assert (truth.annotation(tmp_path / "m.png", (10, 12)) == values).all()


def test_masks_of_zeros_and_ones_count_as_black_and_white(tmp_path):
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "m.png")
    assert (truth.annotation(tmp_path / "m.png", (4, 4)) == np.eye(4) * 255).all()
    Image.fromarray(np.array([[0, 1, 128]], np.uint8)).save(tmp_path / "m.png")
    assert truth.annotation(tmp_path / "m.png", (1, 3)).tolist() == [[0, 255, 128]]


@pytest.mark.parametrize("size", [(200, 300), (199, 300), (100, 150), (200, 301)])
def test_sizes_may_differ_and_shapes_not(tmp_path, size):
    Image.new("L", (300, 200), 255).save(tmp_path / "m.png")
    assert truth.annotation(tmp_path / "m.png", size).shape == (200, 300)
    for other in ((300, 200), (200, 310), (210, 300)):
        with pytest.raises(RevgraphError, match=r"300 x 200 and its picture .*shape"):
            truth.annotation(tmp_path / "m.png", other)


def test_a_narrow_mask_may_differ_by_a_pixel_too(tmp_path):
    Image.new("L", (20, 200), 255).save(tmp_path / "m.png")
    for size in ((200, 21), (201, 20), (199, 19), (400, 41)):
        assert truth.annotation(tmp_path / "m.png", size).shape == (200, 20)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (np.full((4, 4, 3), (255, 0, 0), np.uint8), "colours"),
        (np.array([[0, 20], [7, 20]], np.uint8), "its values, 0, 7, 20, do not tell"),
        (np.array([[0, 1], [255, 1]], np.uint8), "its values, 0, 1, 255, do not tell"),
        (np.full((4, 4), 128, np.uint8), "nothing of any pixel"),
        (np.full((4, 4, 4), (255, 255, 255, 0), np.uint8), "its pixels are RGBA"),
        (np.full((4, 4), 1, np.uint16), "its pixels are I"),  # or I;16, as newer Pillow calls them
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, content, why):
    Image.fromarray(content).save(tmp_path / "m.png")
    with pytest.raises(RevgraphError, match=why):
        truth.annotation(tmp_path / "m.png", (4, 4))


def test_scores_by_hand():
    mask = np.array([[1, 1, 0, 0]], bool)
    known = np.array([[255, 0, 255, 128]], np.uint8)  # right, wrong, wrong, not counted
    assert truth.score(mask, [known]) == (1 / 3, 1 / 3)
    known = np.array([[128, 0, 255, 128]], np.uint8)  # what is not counted is in no union
    assert truth.score(mask, [known]) == (0, 0)
    assert truth.score(mask, [np.array([[255, 128, 0, 128]], np.uint8)]) == (1, 1)
    other = np.array([[255, 0, 0, 0]], np.uint8)  # PP 3/4, IoU 1/2
    assert truth.score(mask, [known, other]) == (3 / 4, 1 / 2)
    nothing = np.zeros((1, 4), np.uint8)
    assert truth.score(mask, [nothing]) == (1 / 2, 0)
    assert truth.score(~mask & mask, [nothing]) == (1, 1)


def test_the_best_mask_may_differ_for_either_score():
    mask = np.array([[1, 0, 0, 0]], bool)
    known = [np.array([row], np.uint8) * 255 for row in ([1, 1, 0, 0], [0, 0, 0, 0])]
    assert truth.score(mask, known) == (3 / 4, 1 / 2)
    known = [np.array([row], np.uint8) * 255 for row in ([0, 0, 0, 0], [1, 1, 1, 0])]
    assert truth.score(mask, known) == (3 / 4, 1 / 3)  # the first by accuracy, the second by IoU


def test_a_score_is_taken_at_the_masks_size():
    mask = np.array([[1, 0], [0, 0]], bool)
    known = np.zeros((6, 6), np.uint8)
    known[:3, :3] = 255
    assert truth.score(mask, [known]) == (1, 1)
    assert truth.resized(np.array([[0.0, 3.0]], np.float32), (1, 4)).tolist() == [[0, 0, 3, 3]]


def test_a_manifest_gives_several_masks_and_classes(data):
    (data / "m.csv").write_text(
        "\ufeffimage,mask,class\npictures/0.png,masks/0.png,a\npictures/0.png,masks/1.png,a\npictures/1.png,masks/1.png,b\n",
        encoding="utf-8",
    )
    first, second = truth.from_manifest(data / "m.csv")
    assert [mask.name for mask in first.masks] == ["0.png", "1.png"]
    assert (first.name, first.group, second.group) == ("pictures/0.png", "a", "b")
    assert truth.from_manifest(data / "m.csv", [data / "pictures/1.png"]) == [second]
    assert truth.from_manifest(data / "m.csv", [data / "pictures"]) == [first, second]
    with pytest.raises(RevgraphError, match=r"no masks for '.*/2.png'"):
        truth.from_manifest(data / "m.csv", [data / "pictures/0.png", data / "pictures/2.png"])


def test_a_folder_of_masks_has_one_or_several_of_a_name(data):
    (data / "masks/1").mkdir()
    for name in ("x.png", "y.png", "notes.txt"):
        (data / "masks/1" / name).write_bytes((data / "masks/1.png").read_bytes())
    pictures = [data / f"pictures/{i}.png" for i in (0, 1)]
    found = truth.from_folder(pictures, data / "masks")
    assert [len(case.masks) for case in found] == [1, 3]
    Image.new("L", (8, 8)).save(data / "pictures/[0].png")
    with pytest.raises(RevgraphError, match=r"holds no \[0\]\.png"):  # not what the pattern would match
        truth.from_folder([data / "pictures/[0].png"], data / "masks")
    Image.new("L", (8, 8)).save(data / "masks/1.jpg")
    found = truth.from_folder([data / "masks/1.jpg"], data / "masks")  # a picture is no mask of itself
    assert data / "masks/1.jpg" not in found[0].masks
    with pytest.raises(RevgraphError, match="another picture has its name"):
        truth.from_folder([pictures[0], pictures[0]], data / "masks")
    with pytest.raises(RevgraphError, match="no folder"):
        truth.from_folder(pictures, data / "nowhere")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,b\n1,2\n", "line 2 has no image"),
        ("image,mask\nx,\n", "line 2 has no mask"),
        ("image,mask\nx,y\0z\n", "m.csv"),
        ("image,mask,class\nx,y,a\nx,y,\n", "line 3 has no class"),
        ("image,mask\n", "lists nothing"),
    ],
)
def test_a_manifest_without_its_columns(tmp_path, text, why):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(RevgraphError, match=why):
        truth.from_manifest(tmp_path / "m.csv")
