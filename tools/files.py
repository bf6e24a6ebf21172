"""Write the list of files at the end of `tools/guides/how-it-works.md`, from what they say of themselves."""

import ast
from pathlib import Path

from tabulate import tabulate

PACKAGE = Path(__file__).parents[1] / "revgraph"
GUIDE = Path(__file__).parent / "guides" / "how-it-works.md"
HEAD = "### The package\n\nWritten by `tools/files.py` from the files' own first lines.\n\n"


def text() -> str:
    """The guide, with the list as the code has it."""
    before, _, _ = GUIDE.read_text(encoding="utf-8").partition(HEAD)
    rows = [(f"`revgraph/{name}`", _first_line(path)) for name, path in sorted(_modules().items())]
    return before + HEAD + tabulate(rows, ["file", "what it is"], tablefmt="github") + "\n"


def _modules() -> dict[str, Path]:
    """Each module and each package, by its name, with the file that says what it is."""
    packages = {f"{path.parent.name}/": path for path in PACKAGE.glob("*/__init__.py")}
    return packages | {path.name: path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"}


def _first_line(path: Path) -> str:
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return said.split("\n")[0].rstrip(".").replace("|", "\\|")


if __name__ == "__main__":
    GUIDE.write_text(text(), encoding="utf-8")
