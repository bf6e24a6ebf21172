"""The same data set by Ray Data, on a Ray of this machine."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from revgraph import RevgraphError
from revgraph.cli import main
from revgraph.dataset import cluster, output
from revgraph.dataset.cluster import Actors
from revgraph.dataset.explaining import Means

RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not RAY, reason="the extra ray is not installed")


@pytest.mark.parametrize(
    ("machines", "device", "expected"),
    [
        ([{"CPU": 1}], "cpu", Actors(1, 1, 0)),
        ([{"CPU": 2}], "cpu", Actors(1, 2, 0)),
        ([{"CPU": 64}, {"CPU": 64}], "cpu", Actors(16, 8, 0)),
        ([{"CPU": 64}, {"CPU": 4}], "cpu", Actors(17, 4, 0)),
        ([{"CPU": 16}, {}], "cpu", Actors(2, 8, 0)),
        ([{"CPU": 8, "GPU": 1}], "cuda", Actors(1, 8, 1)),
        ([{"CPU": 16, "GPU": 1}], "cuda", Actors(2, 8, 0.5)),
        ([{"CPU": 96, "GPU": 8}] * 8 + [{"CPU": 64}], "cuda", Actors(128, 6, 0.5)),
        ([{"CPU": 2, "GPU": 4}], "cuda", Actors(4, 0.5, 1)),
    ],
)
def test_actors_share_the_machines(machines: Any, device: str, expected: Actors) -> None:
    assert cluster.fitting(machines, device) == expected
    for have, each in (("CPU", expected.cpus), ("GPU", expected.gpus)):  # or some would wait for ever
        assert expected.number * each <= sum(machine.get(have, 0) for machine in machines)


def test_a_cluster_without_a_gpu_is_one_line() -> None:
    with pytest.raises(RevgraphError, match="no machine of the cluster has a GPU"):
        cluster.fitting([{"CPU": 8}], "cuda")


def test_an_actor_that_sees_another_folder_is_one_line(tmp_path: Path) -> None:
    """Its machine has no such folder, or one of its own."""
    there = output.Output(str(tmp_path / "rows"), "none")
    actor = cluster._Actor([None], there, "as noted here", Means(), 1)
    (refused,) = actor({"number": [0], "paths": [[b"a.png"]]})["refused"]
    assert f"'{tmp_path / 'rows'}' there is not the folder that was begun here" in refused[1]


def test_a_cluster_that_does_not_answer_is_one_line(
    pictures: Path,
    command: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ray itself tries for some minutes, so that it is not asked here."""

    def init(**_: Any) -> None:
        raise ConnectionError("no answer")

    monkeypatch.setattr(cluster, "_ray", lambda: SimpleNamespace(is_initialized=lambda: False, init=init))
    assert main(command(pictures, tmp_path / "rows", "--engine", "ray")) == 1
    assert capsys.readouterr().err.endswith("cannot reach Ray: no answer (check RAY_ADDRESS)\n")


def test_without_ray_one_line_says_what_to_install(
    pictures: Path,
    command: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(command(pictures, tmp_path / "rows", "--engine", "ray")) == 1
    assert 'cannot run on Ray: ray is not installed (pip install "revgraph[ray]")' in capsys.readouterr().err


def by_ray(given: list[str]) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "revgraph", *given, "--engine", "ray"]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def listing(pictures: Path, tmp_path: Path) -> Path:
    """Some shares, with what cannot be read among them."""
    names = [*sorted(str(path) for path in pictures.rglob("*.*")), str(tmp_path / "missing.png")]
    lines = (f"{names[i % len(names)]}\n" for i in range(6 * output.SHARE + 9))
    (tmp_path / "many.csv").write_text("path\n" + "".join(lines))
    return tmp_path / "many.csv"


@pytest.mark.heavy
@needs_ray
def test_ray_writes_the_same_files(listing: Path, command: Any, tmp_path: Path) -> None:
    given = ["--neuron", "random", "--neuron", "max", "--maps", "png"]
    assert main(command(listing, tmp_path / "local", *given)) == 0
    done = by_ray(command(listing, tmp_path / "ray", *given))
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "ray") == files(tmp_path / "local")
    names = listing.read_text().splitlines()[1:]
    bad = sum(not name.endswith((".png", ".jpg", ".webp")) or "missing" in name for name in names)
    assert done.stdout == f"{tmp_path / 'ray'}  1545 pictures  3090 rows  {2 * bad} errors\n"


@pytest.mark.heavy
@needs_ray
def test_what_an_actor_refuses_is_one_line(pictures: Path, command: Any, tmp_path: Path) -> None:
    done = by_ray(command(pictures, tmp_path / "rows", "--neuron", "class:99"))
    assert done.returncode == 1
    assert "revgraph: error: cannot project on 'class:99': y has no channel 99 (0 to 4)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.heavy
@needs_ray
def test_one_engine_goes_on_where_the_other_was_killed(listing: Path, command: Any, tmp_path: Path) -> None:
    assert main(command(listing, tmp_path / "whole")) == 0
    out = tmp_path / "killed"
    line = [sys.executable, "-m", "revgraph", *command(listing, out), "--engine", "ray"]
    with subprocess.Popen(line, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        while not list(out.glob("part-*.parquet")):
            assert process.poll() is None
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    assert main(command(listing, out)) == 0
    assert files(out) == files(tmp_path / "whole")
