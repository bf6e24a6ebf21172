"""Random graphs against the float64 oracle; REVGRAPH_GRAPHS in the environment says how many of each kind."""

import os
from collections.abc import Mapping, Sequence

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


def compiled(source: onnx.ModelProto, variant: str, target: str = "portable") -> revgraph.Compiled:
    try:
        return revgraph.compile(source, variant=variant, at=source.graph.output[0].name, target=target)
    except revgraph.RevgraphError as refusal:
        if "ceil_mode" in refusal.why:  # the one refusal that a legal graph of these operators may meet
            reject()
        raise


def error(source: onnx.ModelProto, xs: Sequence[np.ndarray], rng: np.random.Generator) -> float:
    """The largest relative error over all variants and inputs, of the forward pass and of x_hat."""
    note(onnx.printer.to_text(source.graph))
    with np.errstate(invalid="ignore"):
        each = [reference.forward(source, {"x": x}) for x in xs]
    if not all(np.isfinite(values).all() for tensors in each for values in tensors.values()):
        reject()  # a dilated window may see padding alone, and its maximum is minus infinity
    worst = 0.0
    for variant in VARIANTS:
        session = revgraph.Session(compiled(source, variant), threads=1)
        for x, tensors in zip(xs, each, strict=True):
            worst = max(worst, error_of_one(session, source, x, tensors, rng))
    return worst


def error_of_one(
    session: revgraph.Session,
    source: onnx.ModelProto,
    x: np.ndarray,
    tensors: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> float:
    trace, at = session.forward(x), session.pair.at
    p = rng.integers(-2, 3, trace.y.shape).astype(np.float32)
    x_hats = reference.reverse(source, tensors, variant=session.pair.variant, at=at, to="x", p=p)
    found = session.reverse(trace, p)
    errors = [relative(trace.y, tensors[at], tensors), relative(found, x_hats["x"], x_hats)]
    if isinstance(session.x_shape[0], str):  # as many projections of the first image
        one = session.reverse(session.forward(x[:1]), p)
        errors.append(relative(one[:1], found[:1], x_hats))
    return max(errors)


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
    source, shapes, seed = drawn
    rng = np.random.default_rng(seed)
    xs = [rng.integers(-2, 3, shape).astype(np.float32) for shape in shapes]
    assert error(source, xs, rng) < 1e-6


@bounded
@given(graphs(exact=False))
def test_graphs_of_all_operators_agree(drawn):
    """float32 may flip a mask or a switch of one input by rounding, but hardly of three in a row."""
    source, shapes, seed = drawn
    rng = np.random.default_rng(seed)
    errors = []
    for _ in range(3):
        xs = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
        errors.append(error(source, xs, rng))
        if errors[-1] < 1e-4:
            return
    pytest.fail(f"relative errors {errors}")
