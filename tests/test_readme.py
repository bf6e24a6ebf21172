"""README.md says what is so: its lists against the code, its demo on a fresh clone. And see test_guides."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from revgraph.variants import VARIANTS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def command(marker: str) -> str:
    found = re.search(rf"{re.escape(marker)}\n```sh\n(.*?)```", README, re.DOTALL)
    assert found, marker
    return found[1]


def test_the_table_of_operators_is_what_the_code_says() -> None:
    written = (ROOT / "revgraph" / "rules" / "README.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "tools" / "operators.py"))["text"]() == written


def test_the_table_of_variants_is_the_eight() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| **")]
    assert re.findall(r"`([a-z-]+)`", "".join(rows)) == list(VARIANTS)


def test_its_commands_are_one_line_each_and_ci_calls_the_tests() -> None:
    for marker in ("<!-- demo -->", "<!-- tests -->"):
        assert command(marker).count("\n") == 1
    assert "<!-- tests -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


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
        ["bash", "-c", command("<!-- demo -->")],
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
