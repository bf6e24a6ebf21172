"""Write the table of operators and their rules, which `revgraph/rules/README.md` holds, from the code."""

import inspect
import textwrap
from pathlib import Path

from tabulate import tabulate

from revgraph.rules import activation
from revgraph.rules.rule import Rule, empty
from revgraph.variants import rules

TARGET = Path(__file__).parents[1] / "revgraph" / "rules" / "README.md"

HEAD = """# Operators and their rules

Written by `tools/operators.py` from the code. Columns: how the operator is reversed (the paper's symbols
where it has them), what its bottleneck is, and the equation that the rule's docstring gives. An operator
that is not here is refused by name.

"""


def text() -> str:
    tables = {
        name: rules(name) for name in ("identity", "deconvnet", "salinet", "desalinet", "salinet-centre")
    }
    rows = []
    for name in sorted(tables["salinet"]):
        choices = list(dict.fromkeys(table[name].name for table in tables.values()))
        rule = tables["salinet"][name]
        rows.append([name, " / ".join(choices), _first_line(rule.bottleneck), _meaning(rule)])
    heads = ["operator", "reversed as", "bottleneck r", "of the derivative or linear rule"]
    return HEAD + tabulate(rows, heads, tablefmt="github") + "\n" + _notes()


def _first_line(function: object) -> str:
    line = "none" if function is empty else (inspect.getdoc(function) or "").split("\n")[0]
    return line.rstrip(".").replace("|", "\\|") or "-"


def _meaning(rule: Rule) -> str:
    return _first_line(rule.reverse)


def _notes() -> str:
    listed = textwrap.fill(", ".join(sorted(activation.BP)), 110)
    return f"""
Rectifier-like operators take the variant's choice of the four, 1 / RU / the slope at x / both:
{listed}.

`Silu` is not an ONNX operator: it stands for the group of nodes that exporters write; HardSwish, Mish, Gelu,
Softplus, Clip and Relu are recognised from such groups too.
"""


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
