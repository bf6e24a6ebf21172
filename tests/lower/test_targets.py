"""Every target: other operations, the same numbers as portable's."""

import os

import numpy as np
import onnx
import pytest
from graphs import graphs
from hypothesis import HealthCheck, given, note, settings
from layers import NETS, assert_close, reverse
from networks import picture
from test_random_graphs import compiled

import revgraph
from revgraph import simplify
from revgraph.verify import verify

OTHERS = ("cpu", "cuda")
"""Those of `tensorrt` and `web` are of the same table as `cuda`'s."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Maps of any number of channels are computed as those of sixteen would be."""
    monkeypatch.setattr(simplify, "BLOCK", 1)


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("target", OTHERS)
def test_the_numbers_are_portables(target, name, variant):
    """Sums in another order: float32 rounding."""
    net = NETS[name]()
    x = picture(3, *(dim.dim_value for dim in net.graph.input[0].type.tensor_type.shape.dim[1:]))
    y = revgraph.Session(revgraph.compile(net, variant=variant)).forward(x).y
    for rows in slice(None), slice(1):
        p = picture(3, *y.shape[1:], seed=1)
        assert_close(
            reverse(net, x[rows], p, variant, target=target), reverse(net, x[rows], p, variant), rtol=1e-5
        )


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("target", OTHERS)
def test_the_proof_passes(target, name, variant):
    net = NETS[name]()
    checks = list(verify(revgraph.compile(net, variant=variant, target=target), net))
    assert [check for check in checks if check.passed is False] == []


@settings(
    max_examples=int(os.environ.get("REVGRAPH_GRAPHS", "25")),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(graphs(exact=True))
def test_graphs_of_integers_agree_exactly(drawn):
    """Ties and exact zeros: masks and switches are the same, and sums of small integers have no rounding."""
    source, shapes, seed = drawn
    note(onnx.printer.to_text(source.graph))
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, shapes[0]).astype(np.float32)
    for variant in revgraph.VARIANTS:
        pairs = [compiled(source, variant, target) for target in ("portable", *OTHERS)]
        sessions = [revgraph.Session(pair, threads=1) for pair in pairs]
        traces = [session.forward(x) for session in sessions]
        p = rng.integers(-2, 3, traces[0].y.shape).astype(np.float32)
        portable, *others = (
            session.reverse(trace, p) for session, trace in zip(sessions, traces, strict=True)
        )
        for target, x_hat in zip(OTHERS, others, strict=True):
            np.testing.assert_array_equal(x_hat, portable, target)
