"""What is installed: a wheel built of the sdist, in an environment of its own, far from the repository."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import onnx
import pytest
from networks import cnn

import revgraph

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.heavy

CLIENT = """\
import numpy as np
import revgraph
session = revgraph.Session(revgraph.compile("net.onnx", variant="desalinet"), device="cpu")
trace = session.forward(np.ones((1, 3, 8, 8), np.float32))
reveal_type((revgraph.load("out"), session.reverse(trace, trace.y), trace.outputs, revgraph.VARIANTS))
"""


def ran(*command: str | Path, cwd: Path, status: int = 0) -> str:
    """What a command prints, run as by a stranger: nothing of this process's paths is on its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built of it."""
    pytest.importorskip("build", reason="the dev extra is not installed")
    folder = tmp_path_factory.mktemp("dist")
    ran(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(distribution: Path) -> Path:
    (path,) = distribution.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment's commands; revgraph and what it needs are there, and no more."""
    folder = tmp_path_factory.mktemp("installed")
    ran(sys.executable, "-m", "venv", folder / "env", cwd=folder)
    commands = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    ran(commands / "python", "-m", "pip", "install", "-q", f"{wheel}[cpu]", cwd=folder)
    return commands


def packaged(folder: Path) -> set[str]:
    """The files under a folder of the repository that git knows, by their paths in it."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone: what belongs to the repository is not known")
    listed = ran("git", "ls-files", folder, cwd=ROOT)
    return set(listed.splitlines())


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    recipes = {f"revgraph/{name}" for name in packaged(Path("models")) if name.endswith(".toml")}
    assert len(recipes) >= 3
    assert "revgraph/py.typed" in held
    assert "revgraph/serving/page/package-lock.json" in held
    assert held == packaged(Path("revgraph")) | recipes


def test_the_sdist_holds_what_is_needed_to_build_and_to_test(distribution: Path) -> None:
    (path,) = distribution.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert held - {"PKG-INFO"} == packaged(Path("."))


def test_it_runs_from_a_folder_that_knows_nothing_of_it(installed: Path, tmp_path: Path) -> None:
    onnx.save(cnn(), tmp_path / "net.onnx")
    command = installed / "revgraph"
    assert ran(command, "--version", cwd=tmp_path).split() == ["revgraph", revgraph.__version__]
    variants = ran(command, "variants", cwd=tmp_path)
    assert all(name in variants for name in revgraph.VARIANTS)
    written = ran(command, "compile", "net.onnx", "--variant", "desalinet", "-o", "out", cwd=tmp_path)
    assert [line.split()[0] for line in written.splitlines()] == [
        str(Path("out", f"net.desalinet.{part}.onnx")) for part in ("forward", "reversed")
    ]
    ran(command, "verify", "out", "--model", "net.onnx", cwd=tmp_path)
    where = ran(installed / "python", "-c", "import revgraph; print(revgraph.__file__)", cwd=tmp_path)
    assert Path(where).is_relative_to(installed.parent)


def test_recipes_and_the_pages_sources_come_along(installed: Path, tmp_path: Path) -> None:
    code = (
        "from revgraph import recipe; from revgraph.serving import web;"
        "print(recipe.load('squeezenet1_1').name, (web.SOURCE / 'index.html').is_file())"
    )
    assert ran(installed / "python", "-c", code, cwd=tmp_path).split() == ["squeezenet1_1", "True"]


def test_a_client_sees_types(installed: Path, tmp_path: Path) -> None:
    if shutil.which("mypy", path=Path(sys.executable).parent) is None:
        pytest.skip("the dev extra is not installed")
    (tmp_path / "client.py").write_text(CLIENT, encoding="utf-8")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed / "python"]
    told = ran(*mypy, "client.py", cwd=tmp_path)
    (revealed,) = (line for line in told.splitlines() if "Revealed type" in line)
    assert "revgraph.pair.Compiled" in revealed
    assert "tuple[revgraph.pair.Compiled, numpy.ndarray[" in revealed
    assert "Mapping[str, numpy.ndarray[" in revealed
    assert "revgraph.rules.rule.Rule" in revealed
