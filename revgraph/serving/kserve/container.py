"""The folder that becomes a container: a compilation, what installs its server, and what Kubernetes needs."""

import json
import re
from pathlib import Path
from typing import Any

from revgraph import packages, recipe
from revgraph.errors import RevgraphError
from revgraph.pair import Compiled
from revgraph.recipe import Recipe
from revgraph.runtime import Device
from revgraph.serving import Written
from revgraph.version import __version__

HTTP, GRPC = 8080, 8081
"""The container's ports."""


def contents(
    folder: Path, compiled: Compiled, chosen: str | None, own: Recipe, batch: int, device: str
) -> Written:
    """The files, with a line on each.

    Args:
        folder: Where they go.
        compiled: What is served.
        chosen: The recipe that was named for it, or its file; None leaves it to the server.
        own: That recipe, or the one that the server will find.
        batch: How many images at most are run at once.
        device: Where: "cpu", "cuda" or "cuda:1".

    Raises:
        RevgraphError: The recipe's class names are not beside it.
    """
    graphs, _ = compiled.contents(compiled.models(folder))
    on = Device.of(device).kind
    command = ["revgraph", "serve", ".", "--host", "0.0.0.0", "--http-port", str(HTTP)]
    command += ["--grpc-port", str(GRPC), "--batch", str(batch), "--device", device]
    beside: Written = {}
    if chosen is not None:
        named = chosen in recipe.names()
        beside = {} if named else _recipe(folder, Path(chosen), own)
        command += ["--recipe", chosen if named else Path(chosen).name]
    extras = ["gpu" if on == "cuda" else "cpu", "serve"]
    if own.labels and own.labels.package in packages.DEMO:
        extras.append("demo")
    return {
        **{path: (content, compiled.about(path)) for path, content in graphs.items()},
        **beside,
        folder / "Dockerfile": (_dockerfile(extras, command), "an image that serves them"),
        folder / "inferenceservice.json": (_service(compiled.name, on), "what KServe runs"),
    }


def _recipe(folder: Path, path: Path, own: Recipe) -> Written:
    """A recipe file, and the class names beside it."""
    beside = {path: "how pictures are fed"}
    if own.labels and own.labels.package is None:
        labels = Path(own.labels.file)
        if labels.parent != path.absolute().parent:
            why = f"its class names are in '{labels}'"
            raise RevgraphError(f"cannot package recipe '{path}'", why, "put them beside it")
        beside[labels] = "the names of its classes"
    return {folder / file.name: (file.read_bytes(), what) for file, what in beside.items()}


def _dockerfile(extras: list[str], command: list[str]) -> bytes:
    wanted = f"revgraph[{','.join(extras)}]=={__version__}"
    return f"""\
FROM python:3.12-slim
WORKDIR /served
COPY . .
# A wheel of revgraph in this folder is taken before the package index.
RUN pip install --no-cache-dir --find-links . "{wanted}"
USER 1000
EXPOSE {HTTP} {GRPC}
CMD {json.dumps(command)}
""".encode()


def _service(name: str, device: str) -> bytes:
    """An InferenceService with one container of one's own, as JSON, which kubectl reads like YAML."""
    ready = {"httpGet": {"path": "/v2/health/ready", "port": HTTP}}
    container: dict[str, Any] = {
        "name": "kserve-container",
        "image": f"{_slug(name)}:latest",
        "ports": [{"containerPort": HTTP, "protocol": "TCP"}],
        "readinessProbe": ready,
    }
    if device == "cuda":
        container["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": _slug(name)},
        "spec": {"predictor": {"containers": [container]}},
    }
    return (json.dumps(service, indent=2) + "\n").encode()


def _slug(name: str) -> str:
    """A name as Kubernetes allows it."""
    return re.sub("[^a-z0-9]+", "-", name.lower())[:50].strip("-") or "network"
