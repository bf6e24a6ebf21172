"""Training goes on where it was stopped, and gives its best by the validation part."""

from pathlib import Path
from typing import Any

import bottleneck
import mirror
import numpy as np
import pytest

from revgraph.errors import RevgraphError

pytestmark = pytest.mark.heavy
torch: Any = pytest.importorskip("torch", reason='PyTorch is not installed: pip install ".[inverse]"')


@pytest.fixture(scope="module")
def parts(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Smooth random pictures to learn from, and others."""
    folder = tmp_path_factory.mktemp("kept")
    pair = mirror.mirrored(network, "relu3", 23, "learned")["both"]
    rng = np.random.default_rng(0)
    x = np.kron(rng.standard_normal((48, 3, 4, 4)), np.ones((6, 6))).astype(np.float32)[..., :23, :23] * 60
    train = bottleneck.keep(folder / "train", pair, x[:32, None], 32)
    return pair, train, bottleneck.keep(folder / "validation", pair, x[32:, None], 16)


def training(folder: Path, parts: Any, seed: int = 5, **budget: Any) -> Any:
    from inverse import Inverse
    from learn import Budget, Training

    torch.set_num_threads(1)  # so that sums are in one order
    folder.mkdir(exist_ok=True)
    pair, train, validation = parts
    chosen = Budget(**{"epochs": 4, "batch": 8, "rate": 1e-2} | budget)
    return Training(folder, Inverse(pair, 60.0), train, validation, chosen, seed)


def test_it_learns(tmp_path: Path, parts: Any) -> None:
    made = training(tmp_path / "a", parts, epochs=12)
    made.run("a")
    (first, before), *_, (last, after) = made.history
    assert last < 0.5 * first
    assert after < before
    lines = (tmp_path / "a" / "history.csv").read_text().splitlines()
    assert lines[0] == "epoch,train,validation"
    assert len(lines) == 13


def test_a_run_that_was_killed_ends_as_one_that_was_not(
    tmp_path: Path, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = training(tmp_path / "whole", parts)
    whole.run("whole")
    killed = training(tmp_path / "killed", parts)
    monkeypatch.setattr(killed, "_epoch", killing(killed._epoch, killed, 2))
    with pytest.raises(KeyboardInterrupt):
        killed.run("killed")
    again = training(tmp_path / "killed", parts)
    assert len(again.history) == 2
    again.run("killed")
    assert again.history == whole.history
    for one, other in zip(again.inverse.parameters(), whole.inverse.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_best_epoch_is_what_it_gives_and_survives_a_kill(
    tmp_path: Path, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = training(tmp_path / "a", parts)
    losses, states = [0.9, 0.5, 0.7, 0.6], []

    def validated() -> float:
        states.append([p.detach().clone() for p in made.inverse.parameters()])
        return losses[len(states) - 1]

    monkeypatch.setattr(made, "_validated", validated)
    monkeypatch.setattr(made, "_epoch", killing(made._epoch, made, 3))
    with pytest.raises(KeyboardInterrupt):
        made.run("a")
    made = training(tmp_path / "a", parts)
    monkeypatch.setattr(made, "_validated", validated)
    best = made.run("a")
    assert [validation for _, validation in made.history] == losses
    assert all(torch.equal(a, b) for a, b in zip(best.parameters(), states[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(best.parameters(), states[3], strict=True))


def killing(epoch: Any, made: Any, after: int) -> Any:
    """An epoch that is interrupted after so many."""

    def interrupted(bar: Any) -> float:
        if len(made.history) == after:
            raise KeyboardInterrupt
        return float(epoch(bar))

    return interrupted


def test_the_loss_that_decides_is_that_of_the_validation_part(tmp_path: Path, parts: Any) -> None:
    made = training(tmp_path / "a", parts)
    best = made.run("a")
    pair, _, validation = parts
    read = validation.read(slice(None), ["x", "y", *pair.taps])
    x, y = read.pop("x"), read.pop("y")
    with torch.no_grad():
        x_hat = best(torch.from_numpy(y.copy()), {k: torch.from_numpy(v.copy()) for k, v in read.items()})
    loss = ((x_hat.numpy() - x / 60.0) ** 2).mean()
    assert loss == pytest.approx(min(validation for _, validation in made.history), rel=1e-4)


def test_each_epoch_has_an_order_of_its_own(
    tmp_path: Path, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, orders = training(tmp_path / "a", parts, epochs=2), []
    batches = made._batches

    def noted(kept: Any, rows: np.ndarray) -> Any:
        orders.append(rows.tolist())
        return batches(kept, rows)

    monkeypatch.setattr(made, "_batches", noted)
    made.run("a")
    first, held_out, second, _ = orders
    assert first != second
    assert sorted(first) == sorted(second) == list(range(32))
    assert held_out == list(range(16))


def test_another_seed_is_another_run_and_the_same_one_the_same(tmp_path: Path, parts: Any) -> None:
    histories = []
    for name, seed in ("one", 5), ("same", 5), ("other", 6):
        made = training(tmp_path / name, parts, seed, epochs=1)
        made.run(name)
        histories.append(made.history)
    assert histories[0] == histories[1] != histories[2]


def test_a_loss_that_is_no_number_ends_in_one_line(
    tmp_path: Path, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = training(tmp_path / "a", parts)
    monkeypatch.setattr(made, "_validated", lambda: float("nan"))
    with pytest.raises(
        RevgraphError, match=r"cannot learn 'a': the loss is .* after 1 epochs \(lower --rate, in"
    ):
        made.run("a")
    assert not (tmp_path / "a" / "checkpoint.pt").exists()


def test_a_damaged_checkpoint_is_named(tmp_path: Path, parts: Any) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "checkpoint.pt").write_bytes(b"PK nonsense")
    with pytest.raises(RevgraphError, match=r"cannot go on from '.*checkpoint.pt': .* \(delete it\)"):
        training(tmp_path / "a", parts)
