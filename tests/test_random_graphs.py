"""Random graphs against the float64 oracle; REVGRAPH_GRAPHS in the environment says how many of each kind."""

import os
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from graphs import graphs
from hypothesis import HealthCheck, given, note, reject, settings

import revgraph
from revgraph import reference
from revgraph.variants import VARIANTS

EXAMPLES = int(os.environ.get("REVGRAPH_GRAPHS", "40"))
bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 40,
    suppress_health_check=list(HealthCheck),
)


def compiled(source: onnx.ModelProto, variant: str) -> revgraph.Compiled:
    try:
        return revgraph.compile(source, variant=variant, at=source.graph.output[0].name)
    except revgraph.RevgraphError as refusal:
        if "ceil_mode" in refusal.why:  # the one refusal that a legal graph of these operators may meet
            reject()
        raise


def error(source: onnx.ModelProto, x: np.ndarray, rng: np.random.Generator) -> float:
    """The largest relative error over all variants, of the forward pass and of x_hat."""
    note(onnx.printer.to_text(source.graph))
    with np.errstate(invalid="ignore"):
        tensors = reference.forward(source, {"x": x})
    if not all(np.isfinite(values).all() for values in tensors.values()):
        reject()  # a dilated window may see padding alone, and its maximum is minus infinity
    worst = 0.0
    for variant in VARIANTS:
        session = revgraph.Session(compiled(source, variant), threads=1)
        trace = session.forward(x)
        p = rng.integers(-2, 3, trace.y.shape).astype(np.float32)
        at = session.pair.at
        x_hats = reference.reverse(source, tensors, variant=variant, at=at, to="x", p=p)
        worst = max(
            worst,
            relative(trace.y, tensors[at], tensors),
            relative(session.reverse(trace, p), x_hats["x"], x_hats),
        )
    return worst


def relative(found: np.ndarray, right: np.ndarray, on_the_way: Mapping[str, np.ndarray]) -> float:
    """The error beside the largest number on the way: what cancels leaves the rounding of what it was."""
    largest = max(
        np.abs(values).max(initial=0) for values in on_the_way.values() if values.dtype == np.float64
    )
    return float(np.abs(found - right).max(initial=0) / max(largest, 1e-6))


@bounded
@given(graphs(exact=True))
def test_graphs_of_integers_agree(drawn):
    """Zeros before rectifiers, ties inside windows: the convention decides, and float32 is exact."""
    source, shape, seed = drawn
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, shape).astype(np.float32)
    assert error(source, x, rng) < 1e-6


@bounded
@given(graphs(exact=False))
def test_graphs_of_all_operators_agree(drawn):
    """float32 may flip a mask or a switch of one input by rounding, but hardly of three in a row."""
    source, shape, seed = drawn
    rng = np.random.default_rng(seed)
    errors = []
    for _ in range(3):
        errors.append(error(source, rng.standard_normal(shape).astype(np.float32), rng))
        if errors[-1] < 1e-4:
            return
    pytest.fail(f"relative errors {errors}")
