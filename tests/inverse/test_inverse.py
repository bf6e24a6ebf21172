"""An inverse in PyTorch computes what onnxruntime does, before and after its filters were learned."""

from pathlib import Path
from typing import Any

import mirror
import numpy as np
import pytest

import revgraph
from revgraph import weights
from revgraph.errors import RevgraphError
from revgraph.pair import Compiled

pytestmark = pytest.mark.heavy
torch: Any = pytest.importorskip("torch", reason='PyTorch is not installed: pip install ".[inverse]"')

UNIT = 50.0


@pytest.fixture(params=[(how, kind) for how in mirror.UNPOOLING for kind in mirror.KINDS], ids=" ".join)
def case(request: pytest.FixtureRequest, network: Path) -> tuple[str, Compiled]:
    how, kind = request.param
    return how, mirror.mirrored(network, "relu3", 23, how)[kind]


def traced(pair: Compiled) -> tuple[revgraph.Session, Any, dict[str, Any]]:
    session = revgraph.Session(pair)
    x = np.random.default_rng(1).standard_normal((3, 3, 23, 23)).astype(np.float32)
    trace = session.forward(x)
    return session, trace, {name: torch.from_numpy(tap.numpy().copy()) for name, tap in trace.taps.items()}


def test_with_the_networks_own_filters_it_is_the_reversed_network(
    case: tuple[str, Compiled], monkeypatch: pytest.MonkeyPatch
) -> None:
    import inverse

    monkeypatch.setattr(inverse, "SLOPE", 0.0)
    pair = case[1]
    made = inverse.Inverse(pair, 1.0)
    own = {tensor.name: inverse.numpy_helper.to_array(tensor) for tensor in pair.reversed.graph.initializer}
    with torch.no_grad():
        for name, place in made._places.items():
            made.filters[place].copy_(torch.from_numpy(own[name].copy()))
    session, trace, taps = traced(pair)
    expected = session.reverse(trace, trace.y)
    assert np.abs(expected).max() > 0.1
    with torch.no_grad():
        found = made(torch.from_numpy(trace.y), taps).numpy()
    # Sums of float32 in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_what_is_exported_computes_what_was_learned(case: tuple[str, Compiled], tmp_path: Path) -> None:
    from inverse import Inverse

    how, pair = case
    made = Inverse(pair, UNIT, fixed=how == "centre")
    _, trace, taps = traced(pair)
    torch.manual_seed(0)
    made.settle(torch.from_numpy(trace.y), taps)
    with torch.no_grad():
        for bias in made.biases:
            bias.normal_()
        expected = UNIT * made(torch.from_numpy(trace.y), taps).numpy()
    made.compiled("whatever").save(tmp_path)
    loaded = revgraph.load(tmp_path)
    assert set(loaded.taps) == set(pair.taps)
    session, trace, _ = traced(loaded)
    np.testing.assert_allclose(
        session.reverse(trace, trace.y), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
    )


def test_the_taps_matter(case: tuple[str, Compiled], tmp_path: Path) -> None:
    """Of another picture's bottleneck the exported inverse makes another picture, unless it is given none."""
    from inverse import Inverse

    how, pair = case
    made = Inverse(pair, UNIT, fixed=how == "centre")
    _, trace, taps = traced(pair)
    made.settle(torch.from_numpy(trace.y), taps)
    made.compiled("whatever").save(tmp_path)
    session, trace, _ = traced(revgraph.load(tmp_path))
    for name in pair.taps:
        tap = trace.taps[name].numpy()
        other = {**trace.taps, name: revgraph.session.ort_value(np.ascontiguousarray(tap[::-1]))}
        changed = revgraph.session.Trace(trace.y, trace.outputs, other)
        difference = session.reverse(changed, trace.y) - session.reverse(trace, trace.y)
        assert np.abs(difference).max() > 0.01 * UNIT, name


def test_it_starts_with_outputs_of_unit_deviation(case: tuple[str, Compiled]) -> None:
    from inverse import Inverse

    how, pair = case
    made = Inverse(pair, UNIT, fixed=how == "centre")
    _, trace, taps = traced(pair)
    made.settle(torch.from_numpy(trace.y), taps)
    with torch.no_grad():
        assert made(torch.from_numpy(trace.y), taps).std().item() == pytest.approx(1, abs=1e-3)
    count = 3 + 2 * (how == "learned")  # convolutions, and pools
    assert (len(made.filters), len(made.biases)) == (count, count)


def test_an_operator_that_nothing_runs_is_refused(network: Path) -> None:
    from inverse import Inverse

    pair = mirror.mirrored(network, "relu3", 23, "centre")["nothing"]
    model = pair.reversed
    model.graph.node[0].op_type = "Sin"
    changed = Compiled(pair.name, pair.light_forward, weights.detach(model))
    with pytest.raises(RevgraphError, match=r"cannot learn an inverse past .*: nothing here runs Sin"):
        Inverse(changed, UNIT)
