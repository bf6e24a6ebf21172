"""The matrix of versions: what it takes from pyproject.toml and README.md, and what it makes of its rows."""

import re
import runpy
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def matrix() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools" / "versions" / "matrix.py"))


def test_its_pythons_begin_with_the_oldest_that_pip_takes(matrix: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    first, *others = matrix["supported"]()
    assert project["requires-python"] == first.replace("python", ">=")
    minors = [int(name.partition(".")[2]) for name in (first, *others)]
    assert minors == list(range(minors[0], minors[-1] + 1))


def test_its_extras_are_those_of_the_tests(matrix: dict[str, Any]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r'"\.\[([\w,]+)\]" && \S+ -m pytest', readme)
    assert matrix["EXTRAS"] == tuple(command.split(","))


def test_a_row_says_what_failed_and_what_was_not_tried(
    matrix: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--python", "python3.999", "--wheel", "none.whl", "-o", str(tmp_path)]
    assert matrix["main"](given) == 0
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert all("not tried: no such interpreter here" in row for row in rows)
    assert (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()[-2:] == rows


def test_rows_that_compile_to_other_bytes_are_told(matrix: dict[str, Any]) -> None:
    first, same, other = (
        matrix["Row"]("3.11", dependencies, digests=digests)
        for dependencies, digests in (("a", {"n": "0"}), ("b", {"n": "0"}), ("c", {"n": "1", "m": "2"}))
    )
    assert matrix["differences"]([first, same]) == []
    told = matrix["differences"]([first, same, other])
    assert [line.rpartition(", ")[2] for line in told] == ["n", "m"]
    assert all("3.11 a" in line and "3.11 c" in line for line in told)


@pytest.mark.parametrize(
    ("row", "good"),
    [
        ({"counts": Counter(passed=3, skipped=1)}, True),
        ({"counts": Counter(passed=3, failed=1)}, False),
        ({"why": "failed: status 1, see above"}, False),
        ({"why": "not tried: no such interpreter here"}, True),
    ],
)
def test_a_row_is_good_unless_something_failed(matrix: dict[str, Any], row: Any, good: bool) -> None:
    assert matrix["Row"]("3.11", "oldest", **row).is_good is good
