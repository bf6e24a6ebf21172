"""Random graphs against the float64 oracle. REVGRAPH_GRAPHS says how many of each kind; every failure found
became a named test of its own.
"""

import os

import numpy as np
import onnx
import pytest
from graphs import graphs
from hypothesis import HealthCheck, given, settings

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


def error(source: onnx.ModelProto, x: np.ndarray, rng: np.random.Generator) -> float:
    """The largest relative error over all variants, of the forward pass and of x_hat."""
    tensors = reference.forward(source, {"x": x})
    worst = 0.0
    for variant in VARIANTS:
        session = revgraph.Session(
            revgraph.compile(source, variant=variant, at=source.graph.output[0].name), threads=1
        )
        trace = session.forward(x)
        p = rng.integers(-2, 3, trace.y.shape).astype(np.float32)
        at = session.pair.at
        wanted = reference.reverse(source, tensors, variant=variant, at=at, to="x", p=p)["x"]
        for found, right in ((trace.y, tensors[at]), (session.reverse(trace, p), wanted)):
            worst = max(worst, np.abs(found - right).max(initial=0) / max(np.abs(right).max(initial=0), 1e-6))
    return worst


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
