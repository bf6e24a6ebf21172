"""A static page that explains pictures in a browser, by onnxruntime-web: no picture leaves the machine.

Its source is `page/`; npm builds it once into revgraph's cache. Beside it go one model of all variants and
`site.json`, which says how pictures become its input and what its classes are called.
"""

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import onnx
from PIL import Image

from revgraph import cache, demo, feeding, picture, recipe, storing, zoo
from revgraph.compiler import compile
from revgraph.declared import shape_of
from revgraph.errors import RevgraphError
from revgraph.pair import Compiled
from revgraph.recipe import Recipe
from revgraph.serving import Written
from revgraph.union import union
from revgraph.variants import NAMED, TITLES
from revgraph.weights import LightModel

SOURCE = Path(__file__).parent / "page"
MADE = ("node_modules", "dist")
"""What npm makes in the source."""

NODE = 20
"""The oldest Node.js that builds the page."""

WHATS = {"index.html": "the page: serve the folder from anywhere", "site.json": "what the page says and does"}


def site(
    folder: Path, compilations: Sequence[Compiled], chosen: Recipe, sample: Image.Image | None = None
) -> Written:
    """The files of a page, with a line on some of them.

    Args:
        folder: Where they go.
        compilations: The variants that it shows, of one network.
        chosen: How pictures are fed.
        sample: Chelsea's photograph, for visitors without a picture.

    Raises:
        RevgraphError: The network does not take pictures, the variants do not belong together, or npm is
            missing or fails.
    """
    fused = union(compilations)
    name = f"{compilations[0].name}.onnx"
    if fused.nbytes > storing.ONE_FILE:
        why = f"its weights are {fused.nbytes / 2**30:.1f} GiB"
        raise RevgraphError("cannot package this network for the web", why, "a smaller one")
    said = _site(fused, name, compilations, chosen)
    written: Written = {}
    if sample is not None:
        said["sample"] = {"file": "sample.png", "text": "Try Chelsea the cat"}
        said["licences"].append("Chelsea the cat, photographed by Stéfan van der Walt (CC0).")
        written[folder / "sample.png"] = picture.encode(sample, folder / "sample.png"), "the sample"
    built = build()
    for path in sorted(path for path in built.rglob("*") if path.is_file()):
        written[folder / path.relative_to(built)] = path, WHATS.get(path.name, "")
    for path, content in storing.stored({folder / name: fused}, folder / "none").items():
        written[path] = content, f"the network and its {', '.join(c.variant for c in compilations)}"
    text = json.dumps(said, ensure_ascii=False, indent=1)
    written[folder / "site.json"] = text.encode(), WHATS["site.json"]
    return written


def _site(fused: LightModel, name: str, compilations: Sequence[Compiled], chosen: Recipe) -> dict[str, Any]:
    """What `page/src/site.ts` reads."""
    first, graph = compilations[0], fused.model.graph
    (x, *others) = (value for value in graph.input if value.name != "class")
    if others or x.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        why = f"it wants '{others[0].name}' too" if others else f"'{x.name}' is not of float32"
        raise RevgraphError("cannot package this network for the web", why, "a network of pictures alone")
    height, width = feeding.picture_size(shape_of(x), chosen, None)
    names = chosen.class_names()
    return {
        "title": chosen.title if chosen.source else first.name,
        "model": quote(name),
        "input": x.name,
        "scores": graph.output[0].name,
        "at": first.at,
        "recipe": {
            "size": [height, width],
            "channels": chosen.channels,
            "scale": chosen.scale,
            "mean": chosen.mean,
            "std": chosen.std,
        },
        "variants": [
            {"name": c.variant, "title": TITLES[c.variant], "output": f"{c.variant}/x_hat"}
            for c in compilations
        ],
        "classes": None if names is None else list(names),
        "licences": _licences(chosen),
        "sample": None,
    }


def _licences(chosen: Recipe) -> list[str]:
    """What must be said; `attribution` says of the weights in a line what `weights` says at length."""
    texts = chosen.licence
    return [text for key, text in texts.items() if key != "weights" or "attribution" not in texts]


# ---------------------------------------------------------------- building


def build() -> Path:
    """The folder of the built page, in the cache; made on first use.

    Raises:
        RevgraphError: npm or a Node.js that is new enough is missing, or npm fails.
    """
    sources = sorted(path for path in SOURCE.rglob("*") if path.is_file() and not _is_made(path))
    parts = (part for path in sources for part in (path.name.encode(), path.read_bytes()))
    place = cache.folder() / "pages" / hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    if place.is_dir():
        return place
    npm = _npm()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as temporary:
        working = Path(temporary) / "page"
        shutil.copytree(SOURCE, working, ignore=shutil.ignore_patterns(*MADE))
        # No package's own script runs: none is needed.
        for command in (["ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["run", "build"]):
            _run([npm, *command], working)
        try:
            (working / "dist").rename(place)
        except OSError:
            if not place.is_dir():  # else another process was first
                raise
    return place


def _is_made(path: Path) -> bool:
    return path.relative_to(SOURCE).parts[0] in MADE


def _npm() -> str:
    """The command.

    Raises:
        RevgraphError: It or Node.js is missing, or Node.js is too old.
    """
    what, remedy = "cannot build the page", f"install Node.js {NODE} or newer, which brings npm"
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise RevgraphError(what, f"{'node' if node is None else 'npm'} is not installed", remedy)
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    major = version.removeprefix("v").partition(".")[0]
    if not major.isdecimal() or int(major) < NODE:
        raise RevgraphError(what, f"Node.js is {version or 'broken'}", remedy)
    return npm


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if "npm warn" not in line]
        why = f"npm {command[1]}: {' '.join(said[-6:])}"
        raise RevgraphError("cannot build the page", why, "npm needs its registry, the first time")


# ---------------------------------------------------------------- serving


def example(folder: Path) -> Written:
    """The page of the demonstration: SqueezeNet, the three named variants, and Chelsea the cat."""
    chosen = recipe.load(demo.NETWORK)
    model = zoo.model_path(chosen)
    compilations = [compile(model, variant=variant, target="web") for variant in NAMED]
    return site(folder, compilations, chosen, zoo.sample(demo.PHOTOGRAPH))


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        # Browsers give threads to WebAssembly only on pages that are isolated.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is said of a request."""


def server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """What serves a folder to this machine alone; port 0 is any that is free.

    Raises:
        RevgraphError: The port is taken.
    """
    try:
        return http.server.ThreadingHTTPServer(
            ("127.0.0.1", port), partial(_Handler, directory=os.fspath(folder))
        )
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise RevgraphError(f"cannot serve at port {port}", why, "choose another with --port") from error
