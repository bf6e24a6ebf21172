"""The command over a whole data set: killed and begun again, out of room, in the way of other files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest

from revgraph.cli import main
from revgraph.dataset import output, places

MANY = 5 * output.SHARE + 20


@pytest.fixture
def listing(pictures: Path, tmp_path: Path) -> Path:
    """The pictures again and again."""
    names = sorted(str(path) for path in pictures.rglob("*") if path.suffix in (".png", ".jpg", ".webp"))
    (tmp_path / "many.csv").write_text("path\n" + "".join(f"{names[i % 5]}\n" for i in range(MANY)))
    return tmp_path / "many.csv"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def started(given: list[str]) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", "revgraph", *given]

    def listen() -> None:  # what runs in the background of a shell does not, and leaves that to its children
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(line, stderr=subprocess.PIPE, text=True, preexec_fn=listen)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_killed_run_ends_as_one_that_was_not(
    listing: Path, command: Any, tmp_path: Path, how: signal.Signals, after: int
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(command(listing, whole, "--maps", "float16")) == 0
    with started(command(listing, killed, "--maps", "float16")) as process:
        while not (killed / output.SETTINGS).exists() or len(parts(killed)) < after:
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(how)
        _, said = process.communicate()
        assert process.returncode == {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}[how]
        assert "Traceback" not in said
    left = parts(killed)
    assert after <= len(left) < 6
    assert all(files(whole)[path.name] == path.read_bytes() for path in left)
    before = {path: path.stat().st_mtime_ns for path in left}
    assert main(command(listing, killed, "--maps", "float16")) == 0
    assert files(killed) == files(whole)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())  # not done twice
    rows = pq.read_table(killed, columns=["path"])["path"].to_pylist()
    assert rows == listing.read_text().splitlines()[1:]


def test_a_finished_run_does_nothing(
    pictures: Path, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows"
    assert main(command(pictures, out)) == 0
    first = capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert main(command(pictures, out)) == 0
    said = capsys.readouterr()
    assert said.out == first == f"{out}  5 pictures  5 rows  0 errors\n"
    assert "5 of 5 pictures were there already" in said.err
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert main([*command(pictures, out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"path": str(out), "pictures": 5, "rows": 5, "errors": 0}]


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        (["--variant", "salinet"], "network, variant"),
        (["--neuron", "class:1"], "neurons"),
        (["--seed", "1"], "seed"),
        (["--maps", "png"], "maps"),
        (["--at", "conv2"], "at, network"),
    ],
)
def test_a_folder_keeps_to_what_was_asked(
    pictures: Path,
    command: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    differs: str,
) -> None:
    out = tmp_path / "rows"
    assert main(command(pictures, out)) == 0
    before = files(out)
    capsys.readouterr()
    assert main(command(pictures, out, *options)) == 1
    assert f"cannot go on in '{out}': it holds rows of others: {differs} (" in capsys.readouterr().err
    assert main(command(pictures / "inner", out)) == 1
    assert "listing, pictures" in capsys.readouterr().err
    assert files(out) == before


def test_large_maps_are_written_as_they_come(
    listing: Path, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several groups of rows; a share of large ones would not fit into memory."""
    assert main(command(listing, tmp_path / "usual", "--maps", "png")) == 0
    monkeypatch.setattr(output, "GROUP", 10_000)
    assert main(command(listing, tmp_path / "often", "--maps", "png")) == 0
    usual, often = (parts(tmp_path / name)[0] for name in ("usual", "often"))
    assert pq.ParquetFile(usual).num_row_groups == 1 < pq.ParquetFile(often).num_row_groups
    assert pq.read_table(often) == pq.read_table(usual)


@pytest.mark.parametrize("batch", ["2", "7"])
def test_how_it_runs_is_free(pictures: Path, command: Any, tmp_path: Path, batch: str) -> None:
    """Goals may change while one goes on."""
    out = tmp_path / "rows"
    assert main(command(pictures, out)) == 0
    assert main(command(pictures, out, "--batch", batch, "--threads", "2")) == 0


def test_a_file_has_its_share_whatever_the_batch(listing: Path, command: Any, tmp_path: Path) -> None:
    assert main(command(listing, tmp_path, "--batch", "7")) == 0
    names = listing.read_text().splitlines()[1:]
    for i, part in enumerate(parts(tmp_path)):
        mine = names[i * output.SHARE : (i + 1) * output.SHARE]
        assert pq.read_table(part, columns=["path"])["path"].to_pylist() == mine


def test_other_files_are_left_alone(
    pictures: Path, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.parquet").write_bytes(b"mine")
    assert main(command(pictures, tmp_path)) == 1
    assert "it holds 'mine.parquet' of something else" in capsys.readouterr().err
    (tmp_path / output.SETTINGS).write_text("not json")
    assert main(command(pictures, tmp_path)) == 1
    assert "is not revgraph's" in capsys.readouterr().err
    assert sorted(files(tmp_path)) == [output.SETTINGS, "mine.parquet"]


def test_an_output_that_cannot_be_written_is_one_line(
    pictures: Path, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "rows", "/proc/rows"):
        assert main(command(pictures, out)) == 1
        err = capsys.readouterr().err
        assert err.startswith("revgraph: error: cannot")
        assert len(err.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_file_of_neurons_is_what_it_holds(
    pictures: Path, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    p = tmp_path / "p.npy"
    given = command(pictures, tmp_path / "rows", "--neuron", str(p))
    assert main(given) == 1
    assert f"cannot project on '{p}': No such file" in capsys.readouterr().err
    np.save(p, np.eye(5, dtype=np.float32)[3])
    assert main(given) == 0
    found = pq.read_table(tmp_path / "rows").to_pylist()
    assert main(command(pictures, tmp_path / "three", "--neuron", "index:3")) == 0
    three = pq.read_table(tmp_path / "three").to_pylist()
    assert [row | {"neuron": str(p)} for row in three] == found
    np.save(p, np.eye(5, dtype=np.float32)[2])
    assert main(given) == 1
    assert "it holds rows of others: neurons" in capsys.readouterr().err


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few pages."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False
    )
    if not made or made.returncode:
        pytest.skip("a file system in memory cannot be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_line_and_what_was_done_counts(
    listing: Path, command: Any, tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(listing, tmp_path / "whole", "--maps", "float16")) == 0
    size = parts(tmp_path / "whole")[0].stat().st_size
    disk = os.statvfs(small)
    (small / "ballast").write_bytes(bytes(disk.f_bavail * disk.f_frsize - 3 * size))
    out = small / "rows"
    assert main(command(listing, out, "--maps", "float16")) == 1
    assert "No space left" in capsys.readouterr().err
    done = len(parts(out))
    assert 0 < done < 6
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    (small / "ballast").unlink()
    assert main(command(listing, out, "--maps", "float16")) == 0
    assert f"{done * output.SHARE} of {MANY} pictures were there already" in capsys.readouterr().err
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--neuron", "class:99"], "y has no channel 99"),
        (["--neuron", "max", "--neuron", "index:1,1"], "has 1 coordinates"),
        (["--neuron", "none"], "unknown neuron"),
        (["--device", "cuda"], "cannot run on CUDA"),
    ],
)
def test_what_no_picture_could_have_ends_it(
    pictures: Path,
    command: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    why: str,
) -> None:
    assert main(command(pictures, tmp_path / "rows", *options)) == 1
    err = capsys.readouterr().err
    assert why in err
    assert not parts(tmp_path / "rows")


def test_zero_pictures(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(command(tmp_path / "empty", tmp_path / "rows")) == 1
    assert "no pictures in" in capsys.readouterr().err
    assert not (tmp_path / "rows").exists()


def test_a_network_that_takes_no_pictures(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = networks.model([networks.node("Relu", "x", "y")], ["N", 7, 8, 8])
    onnx.save(net, tmp_path / "seven.onnx")
    given = ["batch", str(pictures), "--model", str(tmp_path / "seven.onnx"), "--recipe", "imagenet"]
    assert main([*given, "-o", str(tmp_path / "rows")]) == 1
    assert "cannot feed pictures to this network" in capsys.readouterr().err
    assert not (tmp_path / "rows").exists()


def test_uris_of_pictures_and_rows(pictures: Path, command: Any, tmp_path: Path) -> None:
    """What pyarrow reaches by one, here this machine itself."""
    assert main(command(pictures, tmp_path / "plain")) == 0
    assert main(command(pictures.as_uri(), (tmp_path / "uri").as_uri())) == 0
    plain, uri = (pq.read_table(tmp_path / name) for name in ("plain", "uri"))
    assert uri.drop(["path"]) == plain.drop(["path"])
    assert uri["path"].to_pylist() == [Path(path).as_uri() for path in plain["path"].to_pylist()]


def test_what_a_store_does_not_give_is_a_row(
    pictures: Path, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of this machine, some of a store, in one list."""
    monkeypatch.setattr(places, "BYTES", 1000)
    (tmp_path / "large.png").write_bytes((pictures / "a.png").read_bytes() + bytes(1000))
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes((pictures / "a.png").read_bytes()[:90])
    given = [tmp_path / f"{name}.png" for name in ("large", "missing", "empty", "cut")]
    lines = [(pictures / "a.png").as_uri(), *(path.as_uri() for path in given), str(pictures / "a.png")]
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{line}\n" for line in lines))
    assert main(command(tmp_path / "list.csv", tmp_path / "rows", "--batch", "4")) == 0
    rows = pq.read_table(tmp_path / "rows").to_pylist()
    assert [row["path"] for row in rows] == lines
    assert rows[0]["x_hat_norm"] == pytest.approx(rows[-1]["x_hat_norm"], rel=1e-5)
    whys = ("more than 1000 bytes", "No such file", "the file is empty", "cut.png")
    assert all(why in row["error"] for why, row in zip(whys, rows[1:-1], strict=True))


def test_names_that_are_no_text(pictures: Path, command: Any, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/in/\xff.png"
    (tmp_path / "in").mkdir()
    try:
        shutil.copy(pictures / "a.png", name)
    except OSError:
        pytest.skip("this file system's names are text")
    assert main(command(tmp_path / "in", tmp_path / "rows")) == 0
    (row,) = pq.read_table(tmp_path / "rows").to_pylist()
    assert row["error"] is None
    assert row["path"].endswith(r"\udcff.png")


def test_two_runs_into_one_folder_end_alike(listing: Path, command: Any, tmp_path: Path) -> None:
    both = [started(command(listing, tmp_path / "both")) for _ in range(2)]
    for process in both:
        _, said = process.communicate()
        assert process.returncode == 0, said
    assert main(command(listing, tmp_path / "whole")) == 0
    assert files(tmp_path / "both") == files(tmp_path / "whole")
