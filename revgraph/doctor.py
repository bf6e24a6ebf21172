"""What this machine can run, and why not the rest."""

import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from revgraph.errors import RevgraphError
from revgraph.runtime import package
from revgraph.session import Session

REPEATS = 3
"""Of both pictures: a GPU captures what it does when it meets a shape again."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a machine may be able to do.

    Attributes:
        what: A device, or an extra of this package.
        works: Whether it can.
        about: What was found, or what is missing and how to get it.
    """

    what: str
    works: bool
    about: str


def examine() -> Iterator[Finding]:
    """Look at onnxruntime, run a small network on each device, and look for what each extra brings."""
    try:
        onnxruntime = package()
    except RevgraphError as error:
        yield Finding("onnxruntime", False, f"{error.why} ({error.remedy})")
    else:
        providers = ", ".join(
            p.removesuffix("ExecutionProvider") for p in onnxruntime.get_available_providers()
        )
        yield Finding("onnxruntime", True, f"{onnxruntime.__version__}, built for {providers}")
        yield _device("cpu")
        yield _device("cuda")
    yield from _extras()


def _device(name: str) -> Finding:
    """A device, tried: x_hat of relu(3 x) for x of 1 and -1 is 3 and 0; on a GPU replayed too."""
    try:
        session = Session(_tiny(), variant="desalinet", device=name)
        for x in ([1.0, -1.0], [-1.0, 1.0]) * REPEATS:
            trace = session.forward(np.array([[[x]]], np.float32))
            x_hat = session.reverse(trace, np.ones((1, 1, 1, 2), np.float32)).ravel().tolist()
            if x_hat != (expected := [3.0 * (n > 0) for n in x]):
                return Finding(name, False, f"a small network gave {x_hat} in place of {expected}")
    except RevgraphError as error:
        return Finding(name, False, f"{error.why} ({error.remedy})")
    return Finding(name, True, f"a small network ran there, and was right (--target {name}, --device {name})")


def _tiny() -> onnx.ModelProto:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    weight = helper.make_tensor("w", kind, [1, 1, 1, 1], [3.0])
    ends = [helper.make_tensor_value_info(name, kind, [1, 1, 1, 2]) for name in "xy"]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _extras() -> Iterator[Finding]:
    """Those of the package that bring more than onnxruntime."""
    needed: dict[str, list[str]] = {}
    requirements = importlib.metadata.requires("revgraph") if _installed("revgraph") else None
    for requirement in requirements or ():
        if found := re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement):
            needed.setdefault(found[1], []).append(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
    for extra, names in needed.items():
        if extra in ("cpu", "gpu", "test", "dev"):
            continue
        missing = [name for name in names if not _installed(name)]
        remedy = f'{", ".join(missing)} is not installed (pip install "revgraph[{extra}]")'
        yield Finding(f"[{extra}]", not missing, remedy if missing else ", ".join(names))


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
