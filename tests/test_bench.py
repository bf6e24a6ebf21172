"""tools/bench runs: what it writes, and that what fails is a row."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "tools" / "bench"


def run(folder: Path, script: str, *arguments: str) -> tuple[str, dict[str, list[dict[str, str]]]]:
    """What a script prints, and the tables that it writes."""
    common = ("--no-peers", "--targets", "portable", "--reps", "1", "--cache", str(folder / "cache"))
    ran = subprocess.run(
        [sys.executable, str(BENCH / script), *arguments, *common, "-o", str(folder / "results")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    tables = {}
    for file in (folder / "results").glob("*.csv"):
        with file.open(newline="", encoding="utf-8") as stream:
            tables[file.stem] = list(csv.DictReader(stream))
    return ran.stdout, tables


def test_it_times_checks_and_describes_one_network(tmp_path: Path) -> None:
    printed, tables = run(tmp_path, "bench.py", "--networks", "tiny", "nonsense", "--batch", "1")
    *timed, refused = tables["results"]
    assert "unknown network 'nonsense'" in refused["failure"]
    assert [row["failure"] for row in timed] == [""] * 6
    assert all(float(row["median_ms"]) > 0 for row in timed)
    assert timed[0]["contender"] == "onnxruntime, forward"
    assert timed[0]["ratio"] == "1"
    errors = [float(row["relative_error"]) for row in timed if row["relative_error"]]
    assert len(errors) == 4
    assert max(errors) < 1e-5
    (compiled,) = tables["compile"]
    assert all(float(compiled[key]) > 0 for key in ("seconds", "peak_mib", "run_mib", "plain_run_mib"))
    # Masks, bool, of 8 channels: two of 8x8 and one of 4x4; switches, int64, of 4x4 and 2x2 windows.
    assert int(compiled["bottleneck_bytes"]) == 8 * (2 * 64 + 16) + 8 * 8 * (16 + 4)
    assert "revgraph, fused" in printed
    assert json.loads((tmp_path / "results" / "machine.json").read_text())["cores"]


@pytest.mark.heavy
def test_it_times_a_light_architecture_at_both_batches(tmp_path: Path) -> None:
    printed, tables = run(tmp_path, "bench.py", "--networks", "light_squeezenet", "--batch", "1", "8")
    assert [row["failure"] for row in tables["results"]] == [""] * 11
    errors = [float(row["relative_error"]) for row in tables["results"] if row["relative_error"]]
    assert len(errors) == 7
    assert max(errors) < 1e-3
    one, eight = tables["compile"]
    assert one["bottleneck_bytes"] == eight["bottleneck_bytes"]
    assert "Geometric means" in printed


@pytest.mark.heavy
def test_growth_has_a_row_for_each_step(tmp_path: Path) -> None:
    steps = ("--network", "tiny", "--sizes", "16", "32", "--batches", "2", "--depths", "4")
    _, tables = run(tmp_path, "growth.py", *steps)
    rows = tables["growth"]
    assert [(row["axis"], row["value"]) for row in rows] == [
        ("size", "16"),
        ("size", "32"),
        ("batch", "2"),
        ("depth", "4"),
    ]
    assert all(row["ratio"] and not row["failure"] for row in rows)
    assert int(rows[1]["bottleneck_bytes"]) == 4 * int(rows[0]["bottleneck_bytes"])
