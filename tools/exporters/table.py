"""Write the table of exported networks into README.md, with what revgraph makes of each."""

import json
import re
from pathlib import Path

import numpy as np
from tabulate import tabulate

import revgraph

README = Path(__file__).with_name("README.md")
EXPORTED = Path(__file__).parents[2] / "tests" / "exported"
REFERENCES = {"salinet": "gradient", "desalinet": "guided", "deconvnet": "deconv"}

HEADS = ["framework", "exporter", "opset", "network", "worst relative error"]


def keys() -> list[list[str]]:
    """Framework, exporter, opset and network of each row, as the manifests say."""
    rows = []
    for path in sorted(EXPORTED.glob("*/manifest.json")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        versions, exporter = manifest["versions"], manifest["exporter"]
        framework = next(iter(versions.values()))  # the framework's own package comes first
        for network, made in manifest["networks"].items():
            described = f"{exporter} {versions[exporter]}" if exporter in versions else exporter
            opset = str(made.get("opset", "-"))
            rows.append([f"{manifest['framework']} {framework}", described, opset, network])
    return rows


def result(exporter: str, network: str) -> str:
    """The largest relative error of y and of x_hat over the three variants, or the error that it ends in."""
    folder = EXPORTED / exporter
    made = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["networks"][network]
    if "error" in made:
        return f"not exported: {made['error']}"
    with np.load(folder / f"{network}.npz") as file:
        wanted = dict(file)
    errors = []
    for variant, reference in REFERENCES.items():
        try:
            session = revgraph.Session(revgraph.compile(folder / f"{network}.onnx", variant=variant))
        except revgraph.RevgraphError as error:
            return f"{error.what}: {error.why}"
        trace = session.forward(wanted["x"])
        errors.append(_relative(trace.y, wanted["y"]))
        errors.append(_relative(session.reverse(trace, wanted["p"]), wanted[reference]))
    return f"{max(errors):.0e}"


def _relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def text() -> str:
    rows = [[*key, result(key[1].split()[0], key[3])] for key in keys()]
    return tabulate(rows, HEADS, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    before, after = re.split(r"\n\| framework .*\|\n", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    README.write_text(f"{before}\n{text()}\n{after}", encoding="utf-8")
