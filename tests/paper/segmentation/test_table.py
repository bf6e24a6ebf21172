"""A run over a data set: what is kept, and what is done again."""

import shutil

import numpy as np
import pytest
from networks import alexnet_like, model, node
from PIL import Image
from scenes import SMALL

from revgraph import RevgraphError, picture, recipe
from revgraph.paper.segmentation import report, truth
from revgraph.paper.segmentation.segment import segment
from revgraph.paper.segmentation.table import Run
from revgraph.paper.subject import Subject


def everything(subject, data, folder, shuffled=False, methods=("desalinet", "baseline")) -> Run:
    cases = truth.from_manifest(data / "manifest.csv")
    return Run(subject, cases, methods, SMALL, shuffled, folder)


def finish(run: Run) -> Run:
    assert list(run.go()) == run.left
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
    next(run.go())
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
        next(run.go())
    assert not (tmp_path / "run").exists()


def test_each_is_shuffled_with_another(subject, data, tmp_path):
    run = everything(subject, data, tmp_path / "run", shuffled=True)
    assert all(run.partner[case.name] != case for case in run.cases)
    assert len({case.name for case in run.partner.values()}) == 4
    image, other = (picture.read(data / f"pictures/{i}.png") for i in (0, 1))
    own, others = (segment(subject, "salinet", image, SMALL, source) for source in (None, other))
    assert own.seeds.shape == others.seeds.shape == (48, 64)
    assert (own.seeds != others.seeds).any()
    next(run.go())
    by_method = {row["method"]: row for row in run._kept()[run.cases[0].name]}
    image, other = (picture.read(case.path) for case in (run.cases[0], run.partner[run.cases[0].name]))
    expected = segment(subject, "desalinet", image, SMALL, other)
    found = by_method["DeSaliNet, shuffled"]["foreground"]
    assert found == pytest.approx(expected.mask.mean(), abs=1e-6)
    assert found != by_method["DeSaliNet"]["foreground"]
    own = segment(subject, "desalinet", image, SMALL)
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
