"""Print what fixed networks compile to, as a JSON object: what was compiled, and sha256 of the ONNX files."""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import onnx

import revgraph
from revgraph import recipe, zoo
from revgraph.compiler import TARGETS

TESTS = Path(__file__).parents[2] / "tests"
sys.path.append(str(TESTS))

from layers import NETS  # noqa: E402
from networks import cnn  # noqa: E402

MANNERS = (
    *({"variant": name} for name in revgraph.VARIANTS),
    *({"variant": "desalinet", "target": name} for name in TARGETS),
    *({"variant": "salinet", "target": name, "bottleneck": "packed"} for name in ("portable", "cpu")),
    {"variant": "desalinet", "target": "cuda", "precision": "fp16"},
)


def written(build: Callable[[], onnx.ModelProto], out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "source.onnx"
    path.write_bytes(build().SerializeToString(deterministic=True))
    return path


EXPORTED = {
    f"{folder}-{path.stem}": path
    for folder in ("dynamo", "tf2onnx")
    for path in sorted(TESTS.glob(f"exported/{folder}/*.onnx"))
}
BUILT: dict[str, Callable[[], onnx.ModelProto]] = {**NETS, "opset9": partial(cnn, opset=9)}

SOURCES: dict[str, Callable[[Path], Path]] = {
    **{name: lambda out, path=path: path for name, path in EXPORTED.items()},
    **{name: partial(written, build) for name, build in BUILT.items()},
    "squeezenet": lambda out: zoo.model_path(recipe.load("squeezenet1_1")),
}
"""What makes each network a file: frameworks wrote it, or a test does, or (SqueezeNet) weights make it."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=SOURCES, metavar="NAME", help="only these")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the files here")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        out = chosen.keep or Path(folder)
        found: dict[str, str] = {}
        for name in chosen.networks or SOURCES:
            path = SOURCES[name](out / name)
            found[name] = sha256([path])
            found |= {f"{name} {manner}": digest for manner, digest in compilations(path, out / name)}
    json.dump(found, sys.stdout, indent=1)


def compilations(path: Path, out: Path) -> Iterator[tuple[str, str]]:
    """Each manner of compiling, and the digest of the pair and the fused file together."""
    for options in MANNERS:
        manner = "-".join(options.values())
        pair = revgraph.compile(path, **options)
        files = [*pair.save(out / manner), *pair.save(out / manner / "fused", fused=True, choose="class")]
        yield manner, sha256(files)


def sha256(paths: Sequence[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


if __name__ == "__main__":
    main()
