"""What is kept of the forward network is what it gave."""

from pathlib import Path

import bottleneck
import mirror
import numpy as np
import pytest

import revgraph


def test_rows_come_back_as_the_forward_graph_gave_them(network: Path, tmp_path: Path) -> None:
    pair = mirror.mirrored(network, "relu3", 23, "centre")["both"]
    x = np.random.default_rng(0).standard_normal((70, 3, 23, 23)).astype(np.float32)  # more than one run
    kept = bottleneck.keep(tmp_path / "kept", pair, iter(x[:, None]), len(x))
    assert len(kept) == 70
    rows = [3, 66, 69]
    trace = revgraph.Session(pair).forward(x[rows])
    found = kept.read(rows, ["x", "y", *pair.taps])
    np.testing.assert_array_equal(found["x"], x[rows])
    np.testing.assert_allclose(
        found["y"], trace.y, rtol=1e-5, atol=1e-6
    )  # another batch, another order of sums
    for name, tap in trace.taps.items():
        assert found[name].dtype == tap.numpy().dtype
        np.testing.assert_array_equal(found[name], tap.numpy())
    mask = trace.taps["relu1/mask"].numpy()
    sizes = [path.stat().st_size - 128 for path in (tmp_path / "kept").glob("*.npy")]
    assert -(-mask[0].size // 8) * 70 in sizes  # a bit for each unit


def test_what_is_there_is_not_computed_again_and_half_of_it_is(network: Path, tmp_path: Path) -> None:
    pair = mirror.mirrored(network, "relu3", 23, "centre")["both"]
    x = np.zeros((2, 1, 3, 23, 23), np.float32)

    def killed() -> object:
        yield x[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bottleneck.keep(tmp_path / "kept", pair, killed(), 2)
    assert not (tmp_path / "kept").exists()
    assert len(bottleneck.keep(tmp_path / "kept", pair, iter(x), 2)) == 2
    assert len(bottleneck.keep(tmp_path / "kept", pair, killed(), 2)) == 2
