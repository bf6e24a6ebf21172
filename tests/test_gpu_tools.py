"""tools/gpu runs: what it writes, and that what fails is a row. On a CPU its times mean nothing."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "tools" / "gpu" / "run.py"


@pytest.mark.heavy
def test_it_times_each_contender_and_says_how_far_off_it_is(tmp_path: Path) -> None:
    chosen = [
        "--device",
        "cpu",
        "--no-tests",
        "--no-peers",
        "--rounds",
        "1",
        "--networks",
        "tiny",
        "nonsense",
    ]
    command = [sys.executable, str(RUN), *chosen, "--batch", "2", "-o", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    with (tmp_path / "cpu" / "results.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["network"], row["precision"]) for row in rows if row["failure"]] == [
        ("nonsense", "fp32"),
        ("nonsense", "fp16"),
    ]
    timed = [row for row in rows if not row["failure"]]
    assert [row["precision"] for row in timed] == ["fp32"] * 4 + ["fp16"] * 4
    assert all(float(row["median_ms"]) > 0 and row["tf32"] == "off" for row in timed)
    for precision, most in ("fp32", 1e-5), ("fp16", 1e-2):
        errors = [row["relative_error"] for row in timed if row["precision"] == precision]
        assert errors[0] == ""  # the forward pass alone
        assert max(map(float, errors[1:])) < most
    assert json.loads((tmp_path / "cpu" / "machine.json").read_text())["device"] == "cpu"
    assert [path.name for path in tmp_path.iterdir()] == ["cpu"]
    assert "fused over plain forward" in ran.stdout
