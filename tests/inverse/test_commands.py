"""The two commands of tools/inverse, on a tiny configuration from end to end."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import scenes
from bottleneck import Kept
from PIL import Image

import revgraph

pytestmark = pytest.mark.heavy
pytest.importorskip("torch", reason='PyTorch is not installed: pip install ".[inverse]"')

TOOLS = Path(__file__).parents[2] / "tools" / "inverse"

TINY = ["--size", "15", "--crops", "4", "--held-out", "2", "--batch", "8", "--epochs", "2", "--threads", "1"]


def run(script: str, *arguments: str | Path) -> tuple[int, str, str]:
    command = [sys.executable, str(TOOLS / script), *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


def test_train_and_evaluate_from_end_to_end(tmp_path: Path, network: Path) -> None:
    for i in range(10):
        scenes.scene(40, 50, seed=i)[0].save(tmp_path / f"{i}.png")
    given = [tmp_path, f"--model={network}=imagenet", "--at", "relu3", *TINY, "-o", tmp_path / "out"]
    status, printed, said = run("train.py", *given, "--seeds", "0", "1")
    assert (status, said) == (0, "")
    with (tmp_path / "out" / "results.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 1 + 2 * 4 * 2
    assert rows[0]["given"] == "not even y"
    assert all(0 < float(row["L2"]) < 10 for row in rows)
    assert printed.count("\n") == 2 + 9 + 1 + 2 + 6
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["pictures"]["test"] == 2
    check(tmp_path / "out", {(row["unpooling"], row["given"], row["seed"]): float(row["L2"]) for row in rows})
    for name in ("sheet.png", "curves.png"):
        with Image.open(tmp_path / "out" / name) as drawn:
            assert min(drawn.size) > 300
    inverse = tmp_path / "out" / "inverses" / "learned" / "both.1" / "small.desalinet.reversed.onnx"
    inputs = {value.name for value in onnxruntime.InferenceSession(inverse).get_inputs()}
    assert inputs == {
        *("p", "relu1/mask", "relu2/mask", "relu3/mask"),
        *("pool1/switches", "pool2/switches"),
    }
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert run("evaluate.py", tmp_path / "out") == (0, printed, "")
    assert run("train.py", *given, "--seeds", "0", "1") == (0, printed, "")
    assert {path: path.read_bytes() for path in before} == before
    shutil.rmtree(inverse.parent)  # that one is trained again, and to the same
    assert run("train.py", *given, "--seeds", "0", "1")[:2] == (0, printed)
    assert inverse.read_bytes() == before[inverse]
    status, printed, said = run("train.py", *given, "--rate", "0.5")
    assert (status, printed) == (1, "")
    assert said.startswith(f"inverse: error: cannot go on in '{tmp_path / 'out'}': other rate than before")
    (tmp_path / "11.png").write_bytes((tmp_path / "out" / "sheet.png").read_bytes())
    assert "other pictures, pictures_sha256 than" in run("train.py", *given)[2]


def check(out: Path, l2: dict[tuple[str, str, str], float]) -> None:
    """Some numbers by hand: the test part is what is measured, the train part what a guess is made of."""
    x, known = (Kept(out / "kept" / part).read(slice(None), ["x"])["x"] for part in ("test", "train"))
    assert (len(x), len(known)) == (2 * (4 + 2), 4 * 7)
    session = revgraph.Session(revgraph.load(out / "inverses" / "centre" / "masks.1"))
    trace = session.forward(x)
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(x) for b in x[:i]]
    for of, x_hat in {
        ("centre", "masks", "1"): session.reverse(trace, trace.y),
        ("", "not even y", ""): known.mean(axis=0),
    }.items():
        norms = [np.linalg.norm(each) for each in x_hat - x]
        assert l2[of] == pytest.approx(np.mean(norms) / np.mean(pairs), rel=1e-3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["{none}"], "none.png': no such file"),
        (["{folder}", "--at", "relu9"], "relu3"),
        (["{folder}", "--batch", "999"], "cannot learn from 24 crops: one batch has 999"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, network: Path, given: list[str], said: str) -> None:
    for i in range(9):
        scenes.scene(40, 50, seed=i)[0].save(tmp_path / f"{i}.png")
    places = [text.format(none=tmp_path / "none.png", folder=tmp_path) for text in given]
    common = [f"--model={network}=imagenet", "--at", "relu3", *TINY, "-o", tmp_path / "out"]
    status, printed, line = run("train.py", *common, *places)
    assert (status, printed) == (1, "")
    assert line.startswith("inverse: error: ")
    assert line.count("\n") == 1
    assert said in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--size", "--crops", "--epochs", "--rate", "--seeds"])
def test_wrong_usage_is_status_two(tmp_path: Path, option: str) -> None:
    for value in ("-1", "nan") if option == "--seeds" else ("0", "nan"):
        status, _, said = run("train.py", tmp_path, option, value, "-o", tmp_path / "out")
        assert status == 2
        assert option in said.splitlines()[-1]
