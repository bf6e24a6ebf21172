"""What is timed: each contender opens what it needs and hands back a call that does the work once."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
from jobs import Job
from networks import TORCH, neurons, pictures

Array = np.ndarray

Call = Callable[[], Array | None]
"""Does the work once; returns x_hat, or None where the work is a forward pass alone."""

PROJECTIONS = 16
"""So many neurons of one image are projected where a contender says so."""

CAPTUM = {"salinet": "Saliency", "desalinet": "GuidedBackprop", "deconvnet": "Deconvolution"}
"""The variants that peers have, and Captum's names for them."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One column of the comparison.

    Attributes:
        name: What the table calls it.
        open: From a job to the call that is timed; may raise.
        target: revgraph's, where the contender is a compilation.
        peer: Whether it needs the packages of requirements.txt.
        group: Those of one group are timed round by round; the plain forward pass is in every group.
        lrn: How it reverses LRN: the variant's "own" way, or by its derivative, "bp".
        projections: Rows of p for one image; None for one row per image.
    """

    name: str
    open: Callable[[Job], Call]
    target: str = ""
    peer: bool = False
    group: str = "rows"
    lrn: str = "own"
    projections: int | None = None

    @property
    def key(self) -> str:
        """What names it in files of progress and lists of the skipped."""
        return f"{self.name}|{self.target}"


GROUPS = ("rows", "free", "projections")
"""One image for each row of p; the same with P unknown to onnxruntime; several rows of p for one image.

Sixteen projections take as long as sixteen rounds of the others, and all sessions of VGG-16 together take
more memory than there is.
"""

PLAIN = "onnxruntime, forward"
"""What every time is compared with: the untouched model."""


def contenders(job: Job) -> Iterator[Contender]:
    """Those that this job asks for, in the order in which each round runs them."""
    yield Contender(PLAIN, plain)
    for target in job["targets"]:
        yield from _revgraph(target, several=job["batch"] == 1)
    if job["peers"]:
        yield from _peers(job)


def _revgraph(target: str, several: bool) -> Iterator[Contender]:
    def fused(job: Job, rows: int | None) -> Call:
        return adjoint(job, job["compiled"][target]["fused"], rows)

    yield Contender("revgraph, fused", lambda job: fused(job, job["batch"]), target)
    yield Contender("revgraph, fused, P left free", lambda job: fused(job, None), target, group="free")
    yield Contender("revgraph, forward with taps", lambda job: taps(job, target), target)
    yield Contender("revgraph, pair", lambda job: pair(job, target), target)
    if several:
        name, rows = f"revgraph, fused, {PROJECTIONS} projections", PROJECTIONS
        yield Contender(name, lambda job: fused(job, rows), target, group="projections", projections=rows)


def _peers(job: Job) -> Iterator[Contender]:
    known, several = job["variant"] in CAPTUM, job["batch"] == 1
    if job["network"] in TORCH:
        yield Contender("torch, forward", torch_forward, peer=True)
        yield Contender("torch.compile, forward", lambda job: torch_forward(job, True), peer=True)
    if job["network"] in TORCH and known:
        yield Contender("Captum", captum, peer=True, lrn="bp")
        yield Contender("Captum, torch.compile", lambda job: captum(job, compiled=True), peer=True, lrn="bp")
        if several:
            name, rows = f"Captum, {PROJECTIONS} projections", PROJECTIONS
            yield Contender(
                name,
                lambda job: captum(job, rows),
                peer=True,
                lrn="bp",
                group="projections",
                projections=rows,
            )
    if known:
        yield Contender("onnx2torch + Captum", onnx2torch, peer=True, lrn="bp")
        yield Contender("onnx-ad", onnx_ad, peer=True, lrn="bp")
        if several:
            name, rows = f"onnx-ad, {PROJECTIONS} projections", PROJECTIONS
            yield Contender(
                name,
                lambda job: onnx_ad(job, rows),
                peer=True,
                lrn="bp",
                group="projections",
                projections=rows,
            )


def projection(job: Job, rows: int) -> Array:
    """p, one neuron in each row."""
    p = np.zeros((rows, *job["y_shape"][1:]), np.float32)
    flat = p.reshape(rows, -1)
    flat[np.arange(rows), neurons(rows, flat.shape[1])] = 1
    return p


# ----- onnxruntime and revgraph -----


def still(options: onnxruntime.SessionOptions) -> None:
    """Let idle threads not spin, so that they take no time from the next contender."""
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3


def options(threads: int, rows: int | None) -> onnxruntime.SessionOptions:
    """Options for so many threads and, unless it stays free, so many rows of p."""
    chosen = onnxruntime.SessionOptions()
    still(chosen)
    chosen.intra_op_num_threads = threads
    if rows is not None:
        chosen.add_free_dimension_override_by_name("P", rows)
    return chosen


def open_file(job: Job, file: str, rows: int | None = None) -> Any:
    return onnxruntime.InferenceSession(
        file, options(job["threads"], rows), providers=["CPUExecutionProvider"]
    )


def plain(job: Job) -> Call:
    session, x = open_file(job, job["model"]), pictures(job["batch"], job["size"])

    def call() -> None:
        session.run(None, {job["input"]: x})

    return call


def adjoint(job: Job, file: str, rows: int | None) -> Call:
    """A fused file; `rows` None leaves P free."""
    session, x = open_file(job, file, rows), pictures(job["batch"], job["size"])
    feeds = {job["input"]: x, "p": projection(job, rows or job["batch"])}
    names = [output.name for output in session.get_outputs()]
    return lambda: session.run(names, feeds)[names.index("x_hat")]


def release() -> None:
    """Forget what contenders of a group share."""
    _session.cache_clear()
    _module.cache_clear()


@cache
def _session(folder: str, threads: int) -> Any:
    import revgraph

    return revgraph.Session(revgraph.load(folder), threads=threads, configure=still)


def taps(job: Job, target: str) -> Call:
    session = _session(job["compiled"][target]["pair"], job["threads"])
    x = pictures(job["batch"], job["size"])

    def call() -> None:
        session.forward(x)

    return call


def pair(job: Job, target: str) -> Call:
    session = _session(job["compiled"][target]["pair"], job["threads"])
    x, p = pictures(job["batch"], job["size"]), projection(job, job["batch"])
    return lambda: session.reverse(session.forward(x), p)


# ----- Peers -----


@cache
def _module(network: str) -> Any:
    import modules

    return modules.build(network)


def torch_forward(job: Job, compiled: bool = False) -> Call:
    import torch

    network = _module(job["network"])
    if compiled:
        network = torch.compile(network)
    x = torch.from_numpy(pictures(job["batch"], job["size"]))

    def call() -> None:
        with torch.inference_mode():
            network(x)

    return call


def captum(job: Job, projections: int | None = None, compiled: bool = False) -> Call:
    import torch

    network = _module(job["network"])
    return _attribution(job, torch.compile(network) if compiled else network, projections)


def onnx2torch(job: Job) -> Call:
    # onnx2torch imports torchvision, whose shape functions need its compiled half: not there beside a torch
    # of another build, and not needed.
    sys.modules.setdefault("torchvision._meta_registrations", ModuleType("_meta_registrations"))
    import onnx2torch

    return _attribution(job, onnx2torch.convert(job["part"]).eval().requires_grad_(False))


def _attribution(job: Job, network: Any, projections: int | None = None) -> Call:
    """Captum's method for the variant; where there are several projections the image is repeated."""
    import captum.attr
    import torch

    method = getattr(captum.attr, CAPTUM[job["variant"]])(network)
    keywords = {"abs": False} if job["variant"] == "salinet" else {}
    x = torch.from_numpy(pictures(job["batch"], job["size"])).repeat(projections or 1, 1, 1, 1)
    shape = job["y_shape"][1:]
    size = int(np.prod(shape))
    indices = [np.unravel_index(i, shape) for i in neurons(len(x), size)]
    target = [tuple(int(i) for i in index) for index in indices]
    return lambda: method.attribute(x, target=target, **keywords).detach().numpy()


def onnx_ad(job: Job, projections: int | None = None) -> Call:
    """onnx-ad's file: its seeds have one more axis, last, in which projections of one image lie."""
    if job["adjoint_error"]:
        raise RuntimeError(job["adjoint_error"])
    session, x = open_file(job, job["adjoint"]), pictures(job["batch"], job["size"])
    seed = next(i.name for i in session.get_inputs() if i.name.startswith("adj_"))
    names = [output.name for output in session.get_outputs()]
    at = next(i for i, name in enumerate(names) if name.startswith("adj_"))
    p = projection(job, projections or job["batch"])
    p = np.moveaxis(p, 0, -1)[None] if projections else p[..., None]
    feeds = {job["input"]: x, seed: np.ascontiguousarray(p)}

    def call() -> Array:
        x_hat = session.run(names, feeds)[at]
        return np.moveaxis(x_hat, -1, 0)[:, 0] if projections else x_hat[..., 0]

    return call
