"""What is fuzzed: for each target its seeds, how they are changed, and what is done with one input."""

import contextlib
import io
import itertools
import random
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import onnx
from google.protobuf.message import DecodeError
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import networks  # noqa: E402

import revgraph  # noqa: E402
from revgraph import inspect, neuron, pair, picture, recipe, variants  # noqa: E402
from revgraph.dataset import source  # noqa: E402
from revgraph.paper.segmentation import truth  # noqa: E402
from revgraph.serving.kserve.service import BOTTLENECK, Service  # noqa: E402
from revgraph.session import Session  # noqa: E402

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
"""Where inputs become files."""

Seeds = Callable[[], Iterator[bytes]]
Run = Callable[[bytes], str]
Mutate = Callable[[random.Random, bytes], bytes]


@dataclass(frozen=True)
class Target:
    """One kind of input.

    Attributes:
        seeds: Inputs to begin with.
        run: What is done with an input; says how it came out. A RevgraphError is a refusal.
        mutate: How one input becomes another, for inputs that bytes changed at random seldom are.
        largest: Most bytes of an input.
    """

    seeds: Seeds
    run: Run
    mutate: Mutate | None = None
    largest: int = 2**16


def _file(name: str, data: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(data)
    return path


def _draws(data: bytes) -> random.Random:
    """Choices that depend on the input alone."""
    return random.Random(zlib.crc32(data))


# ----- Models -----


@cache
def models() -> tuple[onnx.ModelProto, ...]:
    """The tests' networks, random graphs, and what exporters wrote: small ones."""
    from graphs import graphs
    from hypothesis import HealthCheck, given, settings

    found = [networks.cnn(), networks.alexnet_like(), networks.cnn(batch=2)]
    found.append(networks.cnn(opset=21, ir_version=10))
    drawn: list[onnx.ModelProto] = []

    @settings(
        max_examples=60,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(graphs(exact=False))
    def draw(example: Any) -> None:
        drawn.append(example[0])

    draw()
    exported = [onnx.load(path) for path in sorted((ROOT / "tests" / "exported").glob("*/*.onnx"))]
    return tuple(model for model in found + drawn + exported if model.ByteSize() < 2**15)


def _model_seeds() -> Iterator[bytes]:
    return (model.SerializeToString(deterministic=True) for model in models())


def _changed_seeds() -> Iterator[bytes]:
    """And each mutation once, of a network that it leaves readable."""
    yield from _model_seeds()
    rng = random.Random(0)
    for (mutation, _), _ in itertools.product(mutations.MUTATIONS, range(2)):
        model = onnx.ModelProto()
        model.CopyFrom(networks.cnn())
        with contextlib.suppress(ValueError, TypeError):
            mutation(rng, model)
        yield model.SerializeToString()


def _mutate_model(rng: random.Random, data: bytes) -> bytes:
    model = onnx.ModelProto()
    try:
        if rng.random() < 0.25:  # or the corpus drifts to what is refused at once
            model.CopyFrom(rng.choice(models()))
        else:
            model.ParseFromString(data)
        if rng.random() < 0.05:
            other = onnx.ModelProto()
            other.CopyFrom(rng.choice(models()))
            model = mutations.cross(rng, model, other)
        changed = mutations.mutate(rng, model).SerializeToString()
        return mutations.scramble_names(rng, changed, model) if rng.random() < 0.02 else changed
    except (DecodeError, UnicodeDecodeError, ValueError):  # what scrambled names made of it
        return networks.cnn().SerializeToString()


def _compile(data: bytes) -> str:
    rng = _draws(data)
    path = _file("model.onnx", data)
    target = rng.choice(("portable", "portable", "cpu", "cpu", "cuda", "web", "tensorrt"))
    options: dict[str, Any] = {
        "variant": rng.choice(list(variants.VARIANTS)),
        "target": target,
        "bottleneck": rng.choice(("plain", "packed")),
        "lrn": rng.choice((None, "bp", "identity")),
        "precision": "fp16" if target != "cpu" and rng.random() < 0.2 else "fp32",
        "fully_convolutional": rng.random() < 0.15,
    }
    if rng.random() < 0.15:
        options["at"] = rng.choice(("relu1", "pool1", "x", "p", "nowhere"))
    if rng.random() < 0.1:
        inspect.inspect(path)
    compiled = revgraph.compile(path, **options)
    fused, choose = rng.random() < 0.4, rng.choice((None, "max", "class"))
    places = compiled.save(FOLDER / "out", fused, choose if fused else None)
    if rng.random() < 0.2:
        loaded = revgraph.load(FOLDER / "out")
        assert loaded.at in {value.name for value in loaded.light_forward.model.graph.output}
        if rng.random() < 0.5 and _tame(loaded):
            _explain(loaded)
            outcome = "run"
        else:
            outcome = "loaded"
    else:
        outcome = "compiled"
    for path in places:
        path.unlink()
    return outcome


TAME = 2**20
"""Most elements of a tensor that is computed: what a network takes to run is the network's."""


def _tame(compiled: pair.Compiled) -> bool:
    """Whether it is small enough to be run: no loops, and no shape that is large."""
    for light in (compiled.light_forward, compiled.light_reversed):
        graph = light.model.graph
        for value in (*graph.input, *graph.value_info, *graph.output):
            if np.prod([float(dim.dim_value or 3) for dim in value.type.tensor_type.shape.dim]) > TAME:
                return False
        if any(node.op_type in ("Loop", "Scan", "If", "SequenceMap") for node in graph.node):
            return False
    return True


def _explain(compiled: pair.Compiled) -> None:
    """One pass through both graphs, by onnxruntime."""
    session = Session(compiled, threads=1)
    rng = np.random.default_rng(0)
    feeds = {}
    for value in session._forward.session.get_inputs():
        shape = [n if isinstance(n, int) else 2 if i == 0 else 8 for i, n in enumerate(value.shape)]
        kind = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
        feeds[value.name] = rng.standard_normal(shape).astype(kind.get(value.type, np.int64))
    trace = session.forward(feeds.pop(compiled.input), **feeds)
    session.reverse(trace, np.ones_like(trace.y))


# ----- Compilations -----


@cache
def _compilations() -> tuple[bytes, ...]:
    """Forward, reversed and fused files, one behind the other, each after its length."""
    found = []
    for model, variant, options in (
        (networks.cnn(), "desalinet", {}),
        (networks.cnn(), "salinet", {"target": "cpu", "bottleneck": "packed"}),
        (networks.alexnet_like(), "desalinet", {"target": "web", "precision": "fp16"}),
    ):
        compiled = revgraph.compile(model, variant=variant, **options)
        found.append(_join([compiled.forward, compiled.reversed]))
        found += [_join([compiled.fused(choose)]) for choose in (None, "max", "class")]
    return tuple(found)


def _join(parts: list[onnx.ModelProto]) -> bytes:
    texts = [part.SerializeToString(deterministic=True) for part in parts]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _apart(data: bytes) -> list[bytes]:
    parts = []
    while data and len(parts) < 2:
        end = 4 + int.from_bytes(data[:4], "little")
        parts.append(data[4:end])
        data = data[end:]
    return parts


NOTED = (
    *("", "[]", "{}", "null", "1", '"x"', "[[]]", '["x"]', '{"x": 1}', '[["x"]]', "[" * 9999, "class"),
    *("max", "desalinet", "\n"),
)


def _mutate_pair(rng: random.Random, data: bytes) -> bytes:
    """Change the graphs or what is noted of them, and write the digest anew: it is no signature."""
    models = []
    for part in _apart(data):
        model = onnx.ModelProto()
        try:
            model.ParseFromString(part)
        except DecodeError:
            return rng.choice(_compilations())
        models.append(model)
    if not models:
        return rng.choice(_compilations())
    chosen = rng.choice(models)
    if rng.random() < 0.5:
        if chosen.metadata_props:
            entry = rng.choice(chosen.metadata_props)
            entry.value = rng.choice((*NOTED, *(m.value for m in chosen.metadata_props)))
            if rng.random() < 0.5:  # in both
                for model in models:
                    for other in model.metadata_props:
                        other.value = entry.value if other.key == entry.key else other.value
            if rng.random() < 0.1:
                chosen.metadata_props.remove(entry)
    else:
        mutations.mutate(rng, chosen)
    with contextlib.suppress(Exception):  # the digest of a model that cannot be read
        lights = [pair.weights.detach(model) for model in models]
        digest = pair.digest_of(*lights)
        for model in models:
            pair.set_metadata(model, {"digest": digest})
    return _join(models)


def _load(data: bytes) -> str:
    parts, rng = _apart(data), _draws(data)
    ends = ["onnx"] if len(parts) == 1 else ["forward.onnx", "reversed.onnx"]
    folder = FOLDER / "pair"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for end, part in zip(ends, parts, strict=False):
        (folder / f"net.desalinet.{end}").write_bytes(part)
    loaded = revgraph.load(folder)
    for read in ("variant", "at", "input", "x_shape", "x_dtype", "y_channels"):
        getattr(loaded, read)
    for read in ("taps", "signals", "scales", "beyond_paper"):
        getattr(loaded, read)
    loaded.fused(rng.choice((None, "max", "class")))
    if rng.random() < 0.3 and _tame(loaded):
        _explain(loaded)
        return "run"
    return "loaded"


# ----- Pictures -----


TURNED = bytes.fromhex("457869660000 49492a0008000000 0100 12010300 01000000 06000000 00000000")
"""EXIF that says: to be turned."""


def _picture_seeds() -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 10, 4), np.uint8)
    for mode, kinds in {
        "RGB": ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF"),
        "RGBA": ("PNG", "WEBP", "TIFF"),
        "L": ("PNG", "TIFF", "JPEG"),
        "P": ("PNG", "GIF", "BMP", "TIFF"),
        "CMYK": ("JPEG", "TIFF"),
        "I;16": ("PNG", "TIFF"),
        "F": ("TIFF",),
        "1": ("PNG", "TIFF", "PPM"),
    }.items():
        image = Image.fromarray(pixels)
        if mode == "I;16":
            image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        else:
            image = image.convert(mode)
        for kind in kinds:
            for options in ({}, {"exif": TURNED}):
                written = io.BytesIO()
                with contextlib.suppress(Exception):  # a Pillow built without the type
                    image.save(written, kind, **options)
                    yield written.getvalue()
    frames = [Image.fromarray(pixels[..., i]) for i in range(3)]
    for kind in ("GIF", "TIFF", "PNG", "WEBP"):
        written = io.BytesIO()
        frames[0].save(written, kind, save_all=True, append_images=frames[1:])
        yield written.getvalue()
    for compression in ("tiff_lzw", "packbits", "tiff_deflate", "jpeg", "group4", "raw"):
        written = io.BytesIO()
        with contextlib.suppress(Exception):
            Image.fromarray(pixels[..., 0]).convert("1" if compression == "group4" else "RGB").save(
                written, "TIFF", compression=compression
            )
            yield written.getvalue()


def _read_picture(data: bytes) -> str:
    read = picture.read(_file("picture", data))
    if read.mode != "RGB":
        raise AssertionError(f"a picture of mode {read.mode}")
    recipe.load("imagenet").feed(read, (8, 8))
    return "read"


# ----- Arrays -----


def _array_seeds() -> Iterator[bytes]:
    for kind in ("f4", "f8", "i8", "u1", "?", "c8", "O", "U3", ">f4", "f2", "M8[s]"):
        for shape in ((2, 5), (5,), (), (2, 5, 1)):
            written = io.BytesIO()
            np.save(written, np.ones(shape).astype(kind), allow_pickle=True)
            yield written.getvalue()


def _project(data: bytes) -> str:
    y = np.ones((2, 5), np.float32)
    p = neuron.project(neuron.parse(str(_file("p.npy", data))), y, np.random.default_rng(0))
    if p.shape != y.shape or p.dtype != y.dtype or not np.isfinite(p).all():
        raise AssertionError(f"a projection of {p.dtype} {p.shape}")
    return "read"


# ----- Recipes -----


NAMING = """title = "t"
[input]
size = [8, 8]
channels = "L"
scale = 1
mean = [0]
std = [1]
[labels]
file = "{file}"
count = 2
"""


def _recipe_seeds() -> Iterator[bytes]:
    for path in sorted((ROOT / "models").glob("*.toml")):
        yield path.read_bytes()
    yield NAMING.format(file="names.txt").encode()


def _read_recipe(data: bytes) -> str:
    if not (FOLDER / "names.txt").exists():
        _file("names.txt", b"ant\nbee\n")
    read = recipe.load(str(_file("recipe.toml", data)))
    read.feed(Image.new("RGB", (9, 7)), (8, 8))
    read.class_names()
    return "read"


NAMES = (b"ant\nbee\n", b'["ant", "bee"]', b'{"0": "ant, a", "1": "bee"}')


def _read_names(data: bytes) -> str:
    """Class names as lines or as JSON."""
    name = "names.json" if data[:1] in (b"[", b"{", b'"') else "names2.txt"
    _file(name, data)
    text = NAMING.format(file=name)
    recipe.load(str(_file("named.toml", text.encode()))).class_names()
    return "read"


# ----- Lists -----


def _read_lists(data: bytes) -> str:
    path = _file("list.csv", data)
    refused = 0
    for read in (lambda: source.listed(str(path)), lambda: truth.from_manifest(path)):
        try:
            read()
        except revgraph.RevgraphError as error:
            check_line(error)
            refused += 1
    return ("read", "read by one", "refused")[refused]


def check_line(error: revgraph.RevgraphError) -> None:
    """The message is one line that a terminal shows as it is."""
    line = str(error)
    if not line.isprintable() or len(line) > 10_000:
        raise AssertionError(f"not a clear line: {line[:200]!r}") from error


# ----- What clients send to a server -----


@cache
def _service() -> Service:
    compiled = revgraph.compile(networks.cnn(), variant="desalinet", target="cpu", bottleneck="packed")
    return Service(Session(compiled, threads=1))


def _bottleneck_seeds() -> Iterator[bytes]:
    x = networks.picture(1, 3, 8, 8)
    service = _service()
    job = service.job({"x": x}, (BOTTLENECK,))
    (answer,) = service.run([job])
    yield service.finish(job, answer)[BOTTLENECK][0]


def _mutate_archive(rng: random.Random, data: bytes) -> bytes:
    """Tensors within the archive change, so that its checksums hold."""
    if rng.random() < 0.3:
        data = next(_bottleneck_seeds())
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files[:20]}
    except Exception:  # an archive that other changes broke
        return next(_bottleneck_seeds())
    name = rng.choice(list(arrays) or ["x"])
    held = arrays.get(name, np.zeros(1))
    match rng.randrange(8):
        case 0 if held.dtype.kind in "fiub":
            arrays[name] = held.astype(rng.choice(("f4", "f8", "u1", "i8", "?", "U8", "c8")))
        case 1:
            arrays[name] = held[None]
        case 2:
            arrays[name] = held.reshape(-1)
        case 3:
            arrays[rng.choice(("digest", "a/b", "logits", "../x", "\n"))] = arrays.pop(name, held)
        case 4:
            arrays[f"{name}2"] = held
        case 5 if held.dtype.kind in "fiub":
            arrays[name] = np.full_like(held, rng.choice((0, 1, 255)))
        case 6 if held.dtype.kind == "f":
            arrays[name] = np.full_like(held, np.nan)
        case _:
            arrays.pop(name, None)
    written = io.BytesIO()
    save = np.savez if rng.random() < 0.7 else np.savez_compressed
    with contextlib.suppress(Exception):
        save(written, **arrays)
        return written.getvalue()
    return data


def _take_back(data: bytes) -> str:
    service = _service()
    given = np.array([data, None], object)[:1]
    job = service.job({BOTTLENECK: given}, ("x_hat",))
    (answer,) = service.run([job])
    service.finish(job, answer)
    return "run"


TARGETS = {
    "model-bytes": Target(_model_seeds, _compile),
    "model-structure": Target(_changed_seeds, _compile, _mutate_model),
    "pair": Target(lambda: iter(_compilations()), _load, _mutate_pair, 2**18),
    "picture": Target(_picture_seeds, _read_picture),
    "array": Target(_array_seeds, _project),
    "recipe": Target(_recipe_seeds, _read_recipe),
    "names": Target(lambda: iter(NAMES), _read_names),
    "list": Target(lambda: iter((b"path\na.png\n", b"image,mask,class\na.png,b.png,c\n")), _read_lists),
    "bottleneck": Target(_bottleneck_seeds, _take_back, _mutate_archive),
}
