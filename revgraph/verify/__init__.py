"""The proof that a compilation is right, on its own network, by the paper's equations in float64."""

from collections.abc import Iterator
from pathlib import Path

import onnx

from revgraph import network
from revgraph.pair import Compiled
from revgraph.verify import checks
from revgraph.verify.checks import Check
from revgraph.verify.run import Run

__all__ = ["Check", "verify"]


def verify(
    pair: Compiled,
    model: str | Path | onnx.ModelProto | None = None,
    *,
    threads: int = 0,
    device: str = "cpu",
    seed: int = 0,
) -> Iterator[Check]:
    """Prove a compilation right, or find where it is wrong, on random inputs.

    Args:
        pair: The compilation.
        model: What it was compiled from, to hold the forward outputs against.
        threads: onnxruntime's.
        device: Where to run what is proved; as for Session.
        seed: Of the random inputs.

    Yields:
        The checks, each as soon as it is done.

    Raises:
        RevgraphError: The network does not run on a random input, or `model` cannot be read.
    """
    source = None if model is None else network.read(model)
    run = Run(pair, threads, device, seed)
    yield checks.numbers(run)
    yield checks.layers(run)
    yield checks.whole(run)
    yield checks.derivative(run)
    yield checks.linear(run)
    yield checks.signs(run)
    yield checks.outputs(run, source)
    yield checks.batch(run)
    yield checks.projections(run)
    if run.half:
        yield checks.rows(run)
    if pair.metadata["precision"] == "fp16":
        yield checks.precision(run, source)
