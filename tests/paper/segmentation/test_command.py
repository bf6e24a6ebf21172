"""revgraph segment: what it writes and prints, and bad input."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from networks import alexnet_like
from PIL import Image
from scenes import scene

from revgraph import picture
from revgraph.cli import main
from revgraph.paper.segmentation import truth
from revgraph.paper.segmentation.pictures import overlay


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
