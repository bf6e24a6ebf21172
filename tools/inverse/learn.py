"""Training one inverse: a fixed budget, the best epoch by the validation part, a checkpoint after each."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bottleneck import Kept
from inverse import Inverse
from torch import Tensor
from tqdm import tqdm

from revgraph.errors import RevgraphError
from revgraph.paper import sheet
from revgraph.writing import write_all

CLIP = 1.0
"""The most that the gradient's norm may be: rare crops would throw the filters far off at a high rate."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The same for all kinds of inverse.

    Attributes:
        epochs: Passes over the crops. Over them the rate goes through one cycle (Smith and Topin, 2017): up
            in the first tenth, then down along a cosine, Adam's first moment the other way.
        batch: Crops per step.
        rate: Adam's, at its highest.
    """

    epochs: int
    batch: int
    rate: float


class Training:
    """One inverse on its way; what is in `folder` is gone on with.

    Args:
        folder: For checkpoint.pt and history.csv.
        inverse: Fresh.
        train: What is learned from.
        validation: What says when to stop.
        budget: How long at most.
        seed: Of the filters at the start, and of the order of the crops.
    """

    def __init__(
        self, folder: Path, inverse: Inverse, train: Kept, validation: Kept, budget: Budget, seed: int
    ) -> None:
        self.folder, self.inverse, self.budget, self.seed = folder, inverse, budget, seed
        self._train, self._validation = train, validation
        self._steps = len(train) // budget.batch
        torch.manual_seed(seed)
        first = next(self._batches(train, np.random.default_rng(seed).permutation(len(train))))
        inverse.settle(first[1], first[2])
        self._adam = torch.optim.Adam(inverse.parameters(), budget.rate)
        self._rate = torch.optim.lr_scheduler.OneCycleLR(
            self._adam, budget.rate, total_steps=budget.epochs * self._steps, pct_start=0.1
        )
        self.history: list[tuple[float, float]] = []
        self._best: dict[str, Tensor] = {}
        self._resume()

    def run(self, title: str) -> Inverse:
        """Train to the end; the inverse as it was when its loss on the validation part was least."""
        total = self.budget.epochs * self._steps
        with tqdm(total=total, desc=title, initial=len(self.history) * self._steps, disable=None) as bar:
            while len(self.history) < self.budget.epochs:
                loss = self._epoch(bar)
                self.history.append((loss, self._validated()))
                if not np.isfinite(self.history[-1]).all():
                    why = f"the loss is {loss} after {len(self.history)} epochs"
                    raise RevgraphError(f"cannot learn '{title}'", why, "lower --rate, in another folder")
                if self.history[-1][1] == min(valid for _, valid in self.history):
                    self._best = {k: v.clone() for k, v in self.inverse.state_dict().items()}
                self._save()
                bar.set_postfix_str(f"train {loss:.4f}, validation {self.history[-1][1]:.4f}")
        write_all({self.folder / "history.csv": sheet.table(self._rows())})
        self.inverse.load_state_dict(self._best)
        return self.inverse

    def _rows(self) -> list[dict[str, float]]:
        return [
            {"epoch": i, "train": train, "validation": validation}
            for i, (train, validation) in enumerate(self.history, 1)
        ]

    def _epoch(self, bar: Any) -> float:
        """One pass over the crops, in an order of its own; the mean loss."""
        losses = []
        order = np.random.default_rng([self.seed, len(self.history)]).permutation(len(self._train))
        for x, y, taps in self._batches(self._train, order[: self._steps * self.budget.batch]):
            self._adam.zero_grad()
            loss = self._loss(x, y, taps)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.inverse.parameters(), CLIP)
            self._adam.step()
            self._rate.step()
            losses.append(loss.item())
            bar.update()
        return float(np.mean(losses))

    def _validated(self) -> float:
        with torch.no_grad():
            rows = np.arange(len(self._validation))
            losses = [
                self._loss(x, y, taps).item() * len(x) for x, y, taps in self._batches(self._validation, rows)
            ]
        return sum(losses) / len(self._validation)

    def _loss(self, x: Tensor, y: Tensor, taps: dict[str, Tensor]) -> Tensor:
        """The mean squared error, in squared units."""
        return torch.nn.functional.mse_loss(self.inverse(y, taps), x / self.inverse.unit)

    def _batches(self, kept: Kept, rows: np.ndarray) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
        """x, y, and the taps that this kind of inverse is given."""
        names = self.inverse.pair.taps
        for at in range(0, len(rows), self.budget.batch):
            read = kept.read(np.sort(rows[at : at + self.budget.batch]), ("x", "y", *names))
            tensors = {name: torch.from_numpy(np.array(value)) for name, value in read.items()}
            yield tensors.pop("x"), tensors.pop("y"), tensors

    # ----- Checkpoints -----

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def _save(self) -> None:
        """Moved into place, so that a kill at any point leaves a whole one."""
        beside = self._checkpoint.with_suffix(".part")
        state = {
            "inverse": self.inverse.state_dict(),
            "adam": self._adam.state_dict(),
            "rate": self._rate.state_dict(),
            "best": self._best,
            "history": self.history,
        }
        torch.save(state, beside)
        os.replace(beside, self._checkpoint)

    def _resume(self) -> None:
        if not self._checkpoint.is_file():
            return
        try:
            state = torch.load(self._checkpoint, weights_only=True)
            self.inverse.load_state_dict(state["inverse"])
            self._adam.load_state_dict(state["adam"])
            self._rate.load_state_dict(state["rate"])
            self._best, self.history = state["best"], state["history"]
        except Exception as error:  # PyTorch raises whatever a damaged file makes it stumble on
            what = f"cannot go on from '{self._checkpoint}'"
            raise RevgraphError(what, str(error) or type(error).__name__, "delete it") from error
