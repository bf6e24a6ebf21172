"""Where the exported networks and their references lie, and how each framework's script writes them."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from weights import KERNELS, Array, images, projection

FOLDER = Path(__file__).parents[2] / "tests" / "exported"

REFERENCES = ("gradient", "guided", "deconv")

Export = Callable[[str, Path], None]
"""Writes the network of that name to that path."""

Run = Callable[[str, Array, Array], Mapping[str, Array]]
"""From a network's name, x and p to y, and x_hat by each of REFERENCES."""


def record(
    exporter: str, framework: str, packages: Sequence[str], export: Export, run: Run, layout: str = "NCHW"
) -> None:
    """Write each network's file, its references, and the manifest that says what made them.

    A network that the exporter refuses goes into the manifest with its error instead.

    Args:
        exporter: The name of the folder.
        framework: What the networks are written in.
        packages: Those whose versions matter, the framework's own first.
        export: The exporter.
        run: The framework's own forward and reversed results.
        layout: NCHW or NHWC, as the exported networks are fed.
    """
    folder = FOLDER / exporter
    folder.mkdir(parents=True, exist_ok=True)
    axes = (0, 1, 2, 3) if layout == "NCHW" else (0, 2, 3, 1)
    x, p = np.ascontiguousarray(images().transpose(axes)), projection()
    networks: dict[str, dict[str, object]] = {}
    for network in KERNELS:
        file = folder / f"{network}.onnx"
        references = file.with_suffix(".npz")
        for stale in (file, references):
            stale.unlink(missing_ok=True)
        try:
            export(network, file)
        except Exception as error:
            networks[network] = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
            continue
        networks[network] = {"opset": _clean(file)}
        arrays = {name: np.asarray(array) for name, array in run(network, x, p).items()}
        assert set(arrays) == {"y", *REFERENCES}
        assert all(arrays[name].shape == x.shape for name in REFERENCES)
        np.savez_compressed(references, x=x, p=p, **arrays)
    manifest = {
        "framework": framework,
        "exporter": exporter,
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
        "layout": layout,
        "networks": networks,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _clean(file: Path) -> int:
    """Remove the stack traces and other notes, which name folders of this machine; returns the opset."""
    model = onnx.load(file)
    for noted in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.value_info):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")
    onnx.save(model, file)
    return next(entry.version for entry in model.opset_import if not entry.domain)
