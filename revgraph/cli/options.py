"""Arguments that several commands take, and the kinds of values that arguments have."""

import argparse

import shtab

from revgraph import neuron, variants
from revgraph.errors import RevgraphError
from revgraph.lower.targets import BOTTLENECKS
from revgraph.runtime import Device
from revgraph.serving import LIMITS

LAYER = "a tensor's name, else a node's (default: what the softmax receives, else the first output)"

MODEL = "an ONNX file, or a network of `revgraph models`"

RECIPE = "how pictures are fed (default: the model's own, else imagenet)"


# ---------------------------------------------------------------- arguments


def everywhere() -> argparse.ArgumentParser:
    """The options of every command, before or after its name; `DEFAULTS` are what they are without."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = common.add_argument_group("everywhere")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes on stderr")
    group.add_argument("--json", action="store_true", help="results as JSON on stdout")
    group.add_argument("--device", type=device, metavar="NAME", help="cpu, cuda, cuda:1 (default: cpu)")
    group.add_argument(
        "--threads",
        type=whole,
        metavar="N",
        help="onnxruntime's threads (default: 0, it decides; 1 where several pictures run at once)",
    )
    return common


DEFAULTS = {"quiet": False, "json": False, "device": "cpu", "threads": 0}


def path(sub: argparse._ActionsContainer, *names: str, folder: bool = False, **how: object) -> None:
    """An argument that a shell completes by what lies there: files and folders, or folders alone."""
    action = sub.add_argument(*names, **how)  # type: ignore[arg-type]
    action.complete = shtab.DIRECTORY if folder else shtab.FILE  # type: ignore[attr-defined]


def output(sub: argparse.ArgumentParser, metavar: str, text: str = "where the files go") -> None:
    """-o, which has no default."""
    path(sub, "-o", "--output", required=True, folder=metavar == "FOLDER", metavar=metavar, help=text)


def layer(sub: argparse.ArgumentParser) -> None:
    """Which tensor is y."""
    sub.add_argument("--at", metavar="LAYER", help=LAYER)


def recipe(sub: argparse.ArgumentParser, text: str = RECIPE) -> None:
    """How pictures are fed."""
    path(sub, "--recipe", metavar="NAME_OR_FILE", help=text)


def seed(sub: argparse.ArgumentParser, text: str = "of the random generator") -> None:
    """Where random numbers begin."""
    sub.add_argument("--seed", metavar="N", type=whole, default=0, help=text)


def compilation(sub: argparse.ArgumentParser) -> None:
    """Of a folder which compilation, of a model how to compile it."""
    help_variant = "which variant (default: desalinet, or a folder's only one)"
    sub.add_argument("--variant", choices=variants.VARIANTS, help=help_variant)
    layer(sub)


def neurons(sub: argparse.ArgumentParser) -> None:
    """Which neurons of pictures, and how these are fed."""
    kinds = ", ".join(kind.usage for kind in neuron.KINDS.values())
    help_neuron = f"{kinds}, or file.npy; may be given several times (default: max)"
    sub.add_argument("--neuron", metavar="SPEC", action="append", help=help_neuron)
    recipe(sub)
    seed(sub)


def experiment(sub: argparse.ArgumentParser) -> None:
    """The network of an experiment."""
    path(sub, "--model", metavar="MODEL", default="squeezenet1_1", help=MODEL)
    recipe(sub)


def served(sub: argparse.ArgumentParser) -> None:
    """What is served, and how."""
    path(sub, "model", metavar="FOLDER_OR_MODEL", help="a folder that compile wrote, or a model")
    compilation(sub)
    recipe(sub)
    help_packed = (
        "of a model; packed: masks and switches in few bits, which the server can hand out for later"
    )
    sub.add_argument("--bottleneck", choices=BOTTLENECKS, default="plain", help=help_packed)
    sub.add_argument(
        "--batch",
        metavar="N",
        type=positive,
        default=LIMITS.batch,
        help="images that a server runs at once, at most",
    )


# ---------------------------------------------------------------- values


def device(text: str) -> str:
    """A device's name."""
    try:
        Device.of(text)
    except RevgraphError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def whole(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1."""
    if not whole(text):
        raise argparse.ArgumentTypeError("at least 1")
    return int(text)


def port(text: str) -> int:
    """A port of this machine."""
    if whole(text) > 65535:
        raise argparse.ArgumentTypeError("0 to 65535")
    return int(text)


def side(text: str) -> int:
    """A picture's side in pixels."""
    if not 16 <= whole(text) <= 4096:
        raise argparse.ArgumentTypeError("16 to 4096")
    return int(text)


def number(text: str) -> float:
    """A number from 0."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0")
    return found
