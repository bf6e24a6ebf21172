"""Sect. 3.5: maps, seeds, cuts, scores, and the table over a data set."""

import csv
import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from networks import alexnet_like, he, model, node
from PIL import Image
from scipy.stats import multivariate_normal

import revgraph
from revgraph import RevgraphError, picture, recipe
from revgraph.cli import main
from revgraph.paper.segmentation import cut, report, table, truth
from revgraph.paper.segmentation.pictures import overlay
from revgraph.paper.segmentation.saliency import gaussian, indicator, positive, saliency, shrunk, smoothed
from revgraph.paper.segmentation.table import Run, Settings
from revgraph.paper.subject import Subject

rng = np.random.default_rng(0)
SMALL = Settings(shorter=48)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject(alexnet_like(), "net", recipe.load("imagenet"))


def scene(height: int, width: int, seed: int = 0) -> tuple[Image.Image, np.ndarray]:
    """A red disc on green, with noise, and its mask."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    disc = (rows - height * 0.45) ** 2 + (columns - width * 0.55) ** 2 < (min(height, width) / 4) ** 2
    pixels = np.where(disc[..., None], (200, 60, 40), (40, 150, 70)) + draw.normal(0, 12, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), disc


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


# ----- maps -----


def test_the_blob_is_one_gaussian_less_four():
    found = gaussian((150, 200))
    rows, columns = np.mgrid[:150, :200]
    expected = np.zeros((150, 200))
    for sign, row, column in [(1, 74.5, 99.5), *((-1, r, c) for r in (0, 149) for c in (0, 199))]:
        near = (abs(rows - row) <= 62) & (abs(columns - column) <= 62)
        expected += sign * near * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * 24.0**2))
    expected = (expected - expected.min()) / np.ptp(expected)
    np.testing.assert_allclose(found, expected, atol=1e-12)  # the same sums in another order
    assert (found.min(), found.max()) == (0, 1)


def test_the_map_is_that_of_the_strongest_class_over_the_whole_picture(subject):
    image, _ = scene(60, 90)
    for method, lrn in (("salinet", "bp"), ("desalinet", "bp"), ("deconvnet", "identity")):
        small = shrunk(image, 48)
        assert small.size == (72, 48)
        found = saliency(subject, method, small, "positive")
        compiled = revgraph.compile(alexnet_like(), variant=method, lrn=lrn, fully_convolutional=True)
        session = revgraph.Session(compiled)
        trace = session.forward(subject.recipe.feed(small, (48, 72)))
        channel = np.unravel_index(trace.y.argmax(), trace.y.shape)[1]
        p = np.zeros_like(trace.y)
        p[:, channel] = trace.y[:, channel] > 0
        assert trace.y.shape[2:] != (1, 1)
        x_hat = session.reverse(trace, p)[0]
        # two targets of one network: float32 rounding
        np.testing.assert_allclose(found.map, abs(x_hat).max(axis=0), rtol=1e-4, atol=1e-6 * abs(x_hat).max())
        assert found.map.shape == (48, 72)


def test_selectors():
    y = np.array([[[[1.0, -2.0, 3.0]], [[4.0, 5.0, -6.0]]]], np.float32)
    assert positive(y, 1).tolist() == [[[[0, 0, 0]], [[1, 1, 0]]]]
    assert indicator(y, 1).tolist() == [[[[0, 0, 0]], [[1, 1, 1]]]]
    assert positive(-abs(y), 0).tolist() == [[[[1, 0, 0]], [[0, 0, 0]]]]


def test_maps_are_changed_beyond_the_paper_only_where_asked():
    m = rng.random((40, 60))
    assert smoothed(m, 0, False) is m
    blurred = smoothed(m, 3, False)
    assert blurred.std() < m.std() / 3
    assert blurred.mean() == pytest.approx(m.mean(), rel=0.05)  # but for the borders
    centred = smoothed(np.ones((40, 60)), 0, True)
    assert np.unravel_index(centred.argmax(), centred.shape) in [(19, 29), (19, 30), (20, 29), (20, 30)]
    assert centred[0, 0] == pytest.approx(np.exp(-((19.5 / (40 / 3)) ** 2 + (29.5 / 20) ** 2) / 2))


def test_pictures_keep_their_shape_unless_very_long():
    assert shrunk(Image.new("L", (300, 100)), 256).size == (768, 256)
    assert shrunk(Image.new("RGB", (7, 5)), 10).size == (14, 10)
    image = scene(60, 90)[0]
    expected = np.asarray(image.resize((72, 48), Image.Resampling.BICUBIC))
    assert (np.asarray(shrunk(image, 48)) == expected).all()
    assert gaussian((1, 1)).tolist() == [[0]]
    with pytest.raises(RevgraphError, match="9 x 1"):
        shrunk(Image.new("RGB", (9, 1)), 256)


def test_a_network_without_a_fully_connected_head_takes_pictures_of_any_shape():
    nodes = [node("Conv", "x w", "c"), node("GlobalAveragePool", "c", "y")]
    net = model(nodes, [1, 3, 24, 24], {"w": he(rng, 4, 3, 3, 3)})
    found = saliency(Subject(net, "net", recipe.load("imagenet")), "salinet", scene(40, 60)[0], "positive")
    assert found.map.shape == (40, 60)


# ----- seeds and cuts -----


def test_seeds_are_quantiles():
    found = cut.seeds(rng.permutation(1000).reshape(20, 50).astype(float), 0.95)
    counts = {side: int((found == side).sum()) for side in (-2, -1, 0, 1, 2)}
    assert counts == {-2: 5, -1: 295, 0: 650, 1: 45, 2: 5}


def test_seeds_of_a_sparse_map_lie_where_it_is_not_zero():
    m = np.zeros((10, 100))
    m[3, :7] = np.arange(1, 8)
    found = cut.seeds(m)
    assert ((found > 0) == (m > 0)).all()
    assert ((found < 0) == (m == 0)).all()


@pytest.mark.parametrize("solver", ["grabcut", "boykov-jolly"])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_no_seeds_no_foreground(solver, value):
    sown = cut.seeds(np.full((8, 9), value))
    assert not sown.any()
    assert not cut.segment(np.zeros((8, 9, 3), np.uint8), sown, solver).any()


@pytest.mark.parametrize("solver", ["grabcut", "boykov-jolly"])
def test_a_cut_finds_the_disc_from_a_few_seeds(solver):
    image, disc = scene(60, 80)
    blob = gaussian((60, 80))
    pixels = np.asarray(image)
    found = cut.segment(pixels, cut.seeds(blob, 0.95), solver)
    assert (found == disc).mean() > 0.98
    assert (found == cut.segment(pixels, cut.seeds(blob, 0.95), solver)).all()


@pytest.mark.parametrize("solver", ["grabcut", "boykov-jolly"])
@pytest.mark.parametrize("size", [(1, 2), (2, 2), (3, 5)])
def test_tiny_and_plain_pictures_are_cut_too(solver, size):
    found = cut.segment(np.full((*size, 3), 90, np.uint8), cut.seeds(rng.random(size)), solver)
    assert found.shape == size


def test_the_cut_has_the_least_energy_of_all():
    """Against every one of the 4096 masks of 3 x 4 pixels, the energy summed as it is written."""
    for seed in range(4):
        draw = np.random.default_rng(seed)
        colours = draw.random((3, 4, 3))
        as_foreground, as_background = draw.random((2, 3, 4)) * 3
        neighbours = [
            ((r, c), other)
            for r, c in np.ndindex(3, 4)
            for other in ((r + 1, c), (r, c + 1))
            if other[0] < 3 and other[1] < 4
        ]
        squares = {pair: float(((colours[pair[0]] - colours[pair[1]]) ** 2).sum()) for pair in neighbours}
        mean = sum(squares.values()) / len(squares)

        def energy(mask, ends=(as_foreground, as_background), squares=squares, mean=mean):
            sides = float(np.where(mask, *ends).sum())
            return sides + sum(
                0.8 * np.exp(-square / (mean / 2)) for (a, b), square in squares.items() if mask[a] != mask[b]
            )

        masks = [np.array(bits).reshape(3, 4) for bits in itertools.product((False, True), repeat=12)]
        least = min(energy(mask) for mask in masks)
        found = cut._least(as_foreground, as_background, colours, 0.8)
        assert energy(found) <= least + 29 / (2 * cut.STEPS)  # each capacity is rounded once
        assert found.any()
        assert not found.all()


def test_colours_are_likely_by_their_mixture():
    colours = rng.random((6, 7, 3))
    chosen = np.zeros((6, 7), bool)
    chosen[2, 3] = True
    expected = 0.05 + 0.95 * multivariate_normal(colours[2, 3], 1e-4 * np.eye(3)).pdf(colours)
    np.testing.assert_allclose(cut._likelihood(colours, chosen), expected, rtol=1e-6)


def test_certain_seeds_keep_their_side():
    pixels = np.full((9, 9, 3), 100, np.uint8)
    sown = np.full((9, 9), -1, np.int8)
    sown[:2], sown[4, 4], sown[0, 0] = -2, 2, 1
    for smoothness in (0.0, 150.0, 5000.0):
        found = cut.boykov_jolly(pixels, sown, smoothness)
        assert found[4, 4]
        assert not found[1].any()


def test_the_largest_component_touches_across_corners():
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
    assert np.argwhere(cut.largest(mask)).tolist() == [[0, 0], [1, 1]]
    assert not cut.largest(np.zeros((3, 3), bool)).any()


# ----- masks and scores -----


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
        (np.full((4, 4), 1, np.uint16), "its pixels are I;16"),
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


# ----- the table -----


def everything(subject, data, folder, shuffled=False, methods=("desalinet", "baseline")) -> Run:
    cases = truth.from_manifest(data / "manifest.csv")
    return Run(subject, cases, methods, SMALL, shuffled, folder)


def finish(run: Run) -> Run:
    for case in run.left:
        run.add(case)
    return run


def test_a_run_goes_on_where_it_was_killed(subject, data, tmp_path):
    whole = finish(everything(subject, data, tmp_path / "whole", shuffled=True))
    lines = (tmp_path / "whole/pictures.csv").read_bytes()
    assert len(lines.splitlines()) == 1 + 4 * 5  # two methods, each also without its cut, one shuffled
    for end in (len(lines) - 1, len(lines) // 2, lines.index(b"\n") + 1):
        folder = tmp_path / f"cut{end}"
        shutil.copytree(tmp_path / "whole", folder)
        (folder / "pictures.csv").write_bytes(lines[:end])
        again = everything(subject, data, folder, shuffled=True)
        assert 0 < len(again.left) <= 4
        assert finish(again).rows() == whole.rows()
        assert (folder / "pictures.csv").read_bytes() == lines
        assert not everything(subject, data, folder, shuffled=True).left


def test_a_folder_keeps_to_its_settings(subject, data, tmp_path):
    run = everything(subject, data, tmp_path / "run")
    run.add(run.cases[0])
    with pytest.raises(RevgraphError, match="differs in methods"):
        everything(subject, data, tmp_path / "run", methods=("salinet",))
    other = Subject(alexnet_like(normalised=False), "net", recipe.load("imagenet"))
    with pytest.raises(RevgraphError, match="differs in network"):
        everything(other, data, tmp_path / "run")
    with pytest.raises(RevgraphError, match="differs in shuffled"):
        everything(subject, data, tmp_path / "run", shuffled=True)
    with pytest.raises(RevgraphError, match="differs in recipe"):
        everything(Subject(alexnet_like(), "net", recipe.load("caffe")), data, tmp_path / "run")
    for name, text in (("pictures.csv", "a,b\n1,2\n"), ("settings.json", "[1]"), ("settings.json", "")):
        folder = tmp_path / f"{name}{len(text)}"
        shutil.copytree(tmp_path / "run", folder)
        (folder / name).write_text(text)
        with pytest.raises(RevgraphError, match="not those of a run"):
            everything(subject, data, folder)


def test_a_network_that_cannot_be_run_leaves_nothing(data, tmp_path):
    net = model([node("GlobalAveragePool", "x", "y")], [1, 7, 24, 24])
    run = everything(Subject(net, "net", recipe.load("imagenet")), data, tmp_path / "run")
    with pytest.raises(RevgraphError, match="cannot feed pictures"):
        run.add(run.cases[0])
    assert not (tmp_path / "run").exists()


def test_each_is_shuffled_with_another(subject, data, tmp_path):
    run = everything(subject, data, tmp_path / "run", shuffled=True)
    assert all(run.partner[case.name] != case for case in run.cases)
    assert len({case.name for case in run.partner.values()}) == 4
    image, other = (picture.read(data / f"pictures/{i}.png") for i in (0, 1))
    own, others = (table.segment(subject, "salinet", image, SMALL, source) for source in (None, other))
    assert own.seeds.shape == others.seeds.shape == (48, 64)
    assert (own.seeds != others.seeds).any()
    run.add(run.cases[0])
    by_method = {row["method"]: row for row in run._kept()[run.cases[0].name]}
    image, other = (picture.read(case.path) for case in (run.cases[0], run.partner[run.cases[0].name]))
    expected = table.segment(subject, "desalinet", image, SMALL, other)
    found = by_method["DeSaliNet, shuffled"]["foreground"]
    assert found == pytest.approx(expected.mask.mean(), abs=1e-6)
    assert found != by_method["DeSaliNet"]["foreground"]
    own = table.segment(subject, "desalinet", image, SMALL)
    assert by_method["DeSaliNet, thresholded"]["foreground"] == pytest.approx(
        (own.seeds > 0).mean(), abs=1e-6
    )
    with pytest.raises(RevgraphError, match="one picture"):
        Run(subject, run.cases[:1], ["salinet"], SMALL, True, tmp_path / "one")


def test_a_run_follows_its_pictures(subject, data, tmp_path):
    """What changed is done again, what was taken off the list is left out, what stayed is kept."""
    finish(everything(subject, data, tmp_path / "run"))
    lines = (data / "manifest.csv").read_text().splitlines(keepends=True)
    (data / "manifest.csv").write_text("".join([lines[0], lines[3], lines[2]]))
    run = everything(subject, data, tmp_path / "run")
    assert not run.left
    assert [row["picture"] for row in run.rows()[::4]] == ["pictures/2.png", "pictures/1.png"]
    Image.new("L", (60, 70), 255).save(data / "masks/1.png")
    run = everything(subject, data, tmp_path / "run")
    assert [case.name for case in run.left] == ["pictures/1.png"]
    finish(run)
    assert next(row["iou"] for row in run.rows() if row["picture"] == "pictures/1.png") < 0.5


def test_a_shuffled_line_knows_the_other_picture(subject, data, tmp_path):
    finish(everything(subject, data, tmp_path / "run", shuffled=True))
    text = (data / "manifest.csv").read_text().splitlines(keepends=True)
    (data / "manifest.csv").write_text("".join(text[:3]))
    run = everything(subject, data, tmp_path / "run", shuffled=True)
    before = {case.name: case.path for case in run.cases}
    assert [case.path for case in run.partner.values()] == list(before.values())[::-1]
    Image.new("RGB", (70, 60), "teal").save(data / "pictures/0.png")
    again = everything(subject, data, tmp_path / "run", shuffled=True)
    assert [case.name for case in again.left] == list(
        before
    )  # the one that changed, and the one that it maps


def test_damaged_and_doubled_lines_are_left_out(subject, data, tmp_path):
    run = finish(everything(subject, data, tmp_path / "run"))
    rows, path = run.rows(), tmp_path / "run/pictures.csv"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, *lines[1:], b"\0" * 40 + b"\n", b"x,y\n", b"\xff"]))
    assert run.rows() == rows
    assert not everything(subject, data, tmp_path / "run").left
    path.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(RevgraphError, match=r"'pictures/3\.png' has no lines"):
        run.rows()
    path.write_bytes(b"".join([*lines[:6], lines[6].replace(b"0.", b"zero "), *lines[7:]]))
    assert len(everything(subject, data, tmp_path / "run").left) == 1


def test_settings_reach_the_map_and_the_cut(subject, monkeypatch):
    seen = []
    monkeypatch.setattr(cut, "segment", lambda *arguments: seen.append(arguments) or arguments[1] > 0)
    image, _ = scene(60, 80)

    def seeds(method, **changes):
        return table.segment(subject, method, image, dataclasses.replace(SMALL, **changes)).seeds

    plain = {method: seeds(method) for method in ("salinet", "desalinet", "deconvnet", "baseline")}
    shares = {method: (found > 0).mean() for method, found in plain.items()}
    assert shares == pytest.approx(
        {"salinet": 0.05, "desalinet": 0.1, "deconvnet": 0.1, "baseline": 0.1}, abs=0.005
    )
    for changes in ({"blur": 3.0}, {"centred": True}):
        assert (seeds("desalinet", **changes) != plain["desalinet"]).any()
        assert (seeds("baseline", **changes) == plain["baseline"]).all()
    seeds("salinet", solver="boykov-jolly", smoothness=7.0)
    assert seen[-1][2:] == ("boykov-jolly", 7.0)


def test_scores_that_are_no_numbers_are_refused():
    nodes = [node("Conv", "x w b", "y")]
    tensors = {"w": he(rng, 2, 3, 3, 3), "b": np.array([0, np.nan], np.float32)}
    broken = Subject(model(nodes, ["N", 3, "H", "W"], tensors), "net", recipe.load("imagenet"))
    for selector in ("positive", "indicator"):
        with pytest.raises(RevgraphError, match="NaN or infinite"):
            saliency(broken, "salinet", scene(40, 60)[0], selector)


def test_the_strongest_class_is_that_of_the_largest_position():
    """Channel 0 is large in one corner, channel 1 a little everywhere."""
    w = np.zeros((2, 3, 1, 1), np.float32)
    w[0, 0], w[1, 1] = 1, 1
    net = model([node("Conv", "x w", "y")], ["N", 3, "H", "W"], {"w": w})
    pixels = np.full((16, 16, 3), (0, 200, 0), np.uint8)
    pixels[:3, :3] = (255, 0, 0)
    subject = Subject(net, "net", recipe.load("imagenet"))
    found = saliency(subject, "salinet", Image.fromarray(pixels), "positive")
    assert found.map[0, 0] > 0
    assert found.map[10, 10] == 0


def test_grabcut_starts_from_the_seeds_and_has_five_rounds(monkeypatch):
    seen = []
    monkeypatch.setattr(cv2, "grabCut", lambda *arguments: seen.append((arguments[1].copy(), *arguments[5:])))
    cut.grabcut(np.zeros((1, 5, 3), np.uint8), np.array([[-2, -1, 0, 1, 2]], np.int8))
    ((mask, rounds, mode),) = seen
    background, maybe, perhaps, foreground = cv2.GC_BGD, cv2.GC_PR_BGD, cv2.GC_PR_FGD, cv2.GC_FGD
    assert mask.tolist() == [[background, maybe, maybe, perhaps, foreground]]
    assert (rounds, mode) == (5, cv2.GC_INIT_WITH_MASK)


def test_certain_seeds_stay_with_grabcut():
    image, disc = scene(60, 80)
    sown = np.where(disc, 1, -1).astype(np.int8)
    sown[:4, :4], sown[27, 44] = 2, -2
    found = cut.grabcut(np.asarray(image), sown)
    assert found[:4, :4].all()
    assert not found[27, 44]
    assert not cut.segment(np.asarray(image), sown)[:4, :4].any()  # another component than the disc


@pytest.mark.parametrize("turned", [True, False])
def test_networks_with_channels_last_become_free_too(turned):
    nodes = [node("Transpose", "x", "t", perm=[0, 3, 1, 2])] if turned else []
    nodes += [
        node("Conv", "t w" if turned else "x w", "c"),
        node("GlobalAveragePool", "c", "g"),
        node("Flatten", "g", "y"),
    ]
    shape = [1, 24, 24, 3] if turned else [1, 3, 24, 24]
    net = model(nodes, shape, {"w": he(rng, 4, 3, 3, 3)})
    image = scene(40, 60)[0]
    found = saliency(Subject(net, "net", recipe.load("imagenet")), "salinet", image, "positive")
    assert found.map.shape == (40, 60)


def test_a_device_that_wants_sizes_is_given_the_portable_form(monkeypatch):
    opened = []
    monkeypatch.setattr("revgraph.paper.subject.Session", lambda pair, **_: opened.append(pair) or 1 / 0)
    subject = Subject(alexnet_like(), "net", recipe.load("imagenet"), device="cuda")
    with pytest.raises(ZeroDivisionError):
        subject.explainer("salinet", "logits", None, 256)
    assert opened[0].metadata["target"] == "portable"


def test_a_map_of_nothing_is_an_empty_mask_and_counted(data, tmp_path):
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("GlobalAveragePool", "r", "y")]
    net = model(nodes, ["N", 3, "H", "W"], {"w": np.zeros((2, 3, 3, 3), np.float32)})
    silent = Subject(net, "net", recipe.load("imagenet"))
    run = finish(everything(silent, data, tmp_path / "run", shuffled=True))
    rows = {row["method"]: row for row in report.means(run.rows())}
    for name in ("DeSaliNet", "DeSaliNet, thresholded", "DeSaliNet, shuffled"):
        assert (rows[name]["empty"], rows[name]["iou"]) == (4, 0)
        assert 50 < rows[name]["pp"] < 100  # the background is right
    assert rows["Baseline"]["empty"] == 0
    assert np.isfinite([v for row in rows.values() for v in row.values() if isinstance(v, float)]).all()


def lines(**scores: list[tuple[str, float]]) -> list[dict[str, object]]:
    return [
        {"picture": str(i), "class": group, "method": method, "pp": v, "iou": v / 2, "empty": 0}
        for method, values in scores.items()
        for i, (group, v) in enumerate(values)
    ]


def test_means_are_of_pictures_or_of_classes():
    values = [0.2, 0.4, 0.9]
    (row,) = report.means(lines(A=[("", v) for v in values]))
    assert (row["pp"], row["iou"], row["iou_median"], row["pictures"]) == (50, 25, 20, 3)
    assert 20 <= row["pp_low"] < row["pp"] < row["pp_high"] <= 90
    (row,) = report.means(lines(A=list(zip("aab", values, strict=True))))
    assert row["pp"] == pytest.approx(100 * (0.3 + 0.9) / 2)
    assert row["iou_median"] == pytest.approx(20)  # of pictures, whatever their classes


def test_differences_are_of_the_same_pictures():
    rows = lines(A=[("", v) for v in (0.2, 0.4, 0.9)], B=[("", v) for v in (0.1, 0.3, 0.8)])
    (row,) = report.differences(rows)
    # paired, it is the same everywhere, though either method's own interval is wide
    assert (row["method"], row["less"]) == ("A", "B")
    assert (row["pp_low"], row["pp"], row["pp_high"]) == pytest.approx((10, 10, 10))


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """A standard error of about sigma / sqrt(n): 1.96 of them on either side."""
    from revgraph.paper import measure

    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = measure.interval(values)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert measure.interval(np.array([0.5])) == (0.5, 0.5)


# ----- the command -----


@pytest.fixture
def network(tmp_path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(alexnet_like().SerializeToString())
    return path


def segment(*words: object) -> int:
    return main(["segment", "--recipe", "imagenet", "--shorter", "48", *map(str, words)])


def test_the_command_writes_mask_and_overlay(data, network, tmp_path, capsys):
    out = tmp_path / "out"
    assert segment(data / "pictures", "--model", network, "-o", out) == 0
    printed = capsys.readouterr().out.splitlines()
    names = [f"{i}.salinet.{what}.png" for i in range(4) for what in ("mask", "overlay")]
    assert [Path(line.split("  ")[0]).name for line in printed] == names
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    mask = np.asarray(picture.read(out / "0.salinet.mask.png"))
    assert mask.shape == (60, 80, 3)
    assert set(np.unique(mask)) <= {0, 255}


def test_the_command_prints_the_table(data, network, tmp_path, capsys):
    out = tmp_path / "out"
    line = ["--manifest", data / "manifest.csv", "--model", network, "-o", out, "--json"]
    assert segment(*line) == 0
    found = json.loads(capsys.readouterr().out)
    methods = [row["method"] for row in found["rows"]]
    four = ["SaliNet", "DeSaliNet", "DeConvNet", "Baseline"]
    assert methods == [name for method in four for name in (method, f"{method}, thresholded")]
    assert all(0 <= row["pp_low"] <= row["pp"] <= row["pp_high"] <= 100 for row in found["rows"])
    assert {row["less"] for row in found["differences"] if row["method"] == "SaliNet"} == {
        "DeSaliNet",
        "DeConvNet",
        "Baseline",
        "SaliNet, thresholded",
    }
    assert found["settings"]["selector"] == "positive"
    files = {path.name for path in out.iterdir()}
    assert files == {"pictures.csv", "settings.json", "table.csv", "differences.csv", "sheet.png"}
    with (out / "table.csv").open() as stream:
        assert [row["method"] for row in csv.DictReader(stream)] == methods
    assert min(picture.read(out / "sheet.png").size) > 400
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert segment(*line[:-1]) == 0
    printed = capsys.readouterr()
    assert "4 of 4 pictures were there already" in printed.err
    assert printed.out.splitlines()[0].split()[:2] == ["method", "PP"]
    assert "settings.json  positive, grabcut" in printed.out.splitlines()[-1]
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_masks_in_a_folder_and_other_settings(data, network, tmp_path):
    words = "--method desalinet --blur 2 --centred --solver boykov-jolly --smoothness 20 --selector indicator"
    line = [data / "pictures", "--masks", data / "masks", "--model", network, *words.split()]
    assert segment(*line, "-o", tmp_path / "out") == 0
    asked = json.loads((tmp_path / "out/settings.json").read_text())
    assert (asked["blur"], asked["centred"], asked["solver"]) == (2, True, "boykov-jolly")
    assert (asked["smoothness"], asked["selector"]) == (20, "indicator")


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        ("", 2, "name pictures, or a --manifest"),
        ("pictures --shuffled", 2, "needs --masks or --manifest"),
        ("pictures --masks masks --manifest manifest.csv", 2, "not allowed with"),
        ("pictures --blur -1", 2, "'-1' is not a number from 0"),
        ("pictures --blur nan", 2, "'nan' is not a number from 0"),
        ("nowhere.png", 1, "cannot read picture 'nowhere.png': no such file"),
        ("--manifest nowhere.csv", 1, "cannot read 'nowhere.csv'"),
        ("pictures --masks nowhere", 1, "cannot find masks in 'nowhere'"),
        ("--manifest manifest.csv --model nothing.onnx", 1, "nothing.onnx"),
        ("--manifest gone.csv", 1, "masks/gone.png': No such file"),
    ],
)
def test_wrong_usage_and_bad_input_leave_nothing(data, network, monkeypatch, capsys, words, status, why):
    monkeypatch.chdir(data)
    (data / "gone.csv").write_text("image,mask\npictures/0.png,masks/0.png\npictures/1.png,masks/gone.png\n")
    try:
        found = segment(*words.split(), *([] if "--model" in words else ["--model", network]), "-o", "out")
    except SystemExit as stop:
        found = stop.code
    printed = capsys.readouterr()
    assert found == status
    assert why in printed.err
    assert printed.out == ""
    assert not (data / "out").exists()


def test_a_bad_mask_stops_with_its_name_and_keeps_what_was_done(data, network, capsys):
    (data / "masks/2.png").write_bytes(b"no picture")
    line = ["--manifest", data / "manifest.csv", "--model", network, "-o", data / "out"]
    assert segment(*line) == 1
    assert "2.png': not a picture" in capsys.readouterr().err
    _, disc = scene(64, 64)
    Image.fromarray(disc).save(data / "masks/2.png")
    assert segment(*line) == 0
    assert "2 of 4 pictures were there already" in capsys.readouterr().err


def test_an_overlay_shows_the_foreground_as_it_is():
    image, disc = scene(40, 50)
    drawn = np.asarray(overlay(image, disc)).astype(int)
    pixels = np.asarray(image).astype(int)
    same = (abs(drawn - pixels) <= 1).all(axis=2)
    assert same[18, 27]
    assert not same[0].any()
    assert (drawn == (255, 0, 0)).all(axis=2).any()


@pytest.mark.heavy
def test_twenty_pictures_by_a_real_network(shared, tmp_path, capsys):
    """The floor is what the background alone has: 0 of IoU."""
    every = truth.from_manifest(shared / "data/manifest.csv")
    chosen = [every[i].path for i in np.linspace(0, len(every) - 1, 20).astype(int)]
    line = ["--manifest", shared / "data/manifest.csv", "--json", "-q", "-o", tmp_path]
    assert main(["segment", *map(str, [*chosen, *line])]) == 0
    rows = {row["method"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert {row["pictures"] for row in rows.values()} == {20}
    # A centred blob is a strong guess here (the whole set gives 50); a network's maps beat chance.
    assert rows["Baseline"]["iou"] > 30
    assert rows["Baseline"]["iou"] > rows["Baseline, thresholded"]["iou"]
    assert rows["SaliNet"]["iou"] > rows["DeConvNet"]["iou"]
    assert rows["SaliNet"]["pp"] > 70
