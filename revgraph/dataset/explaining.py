"""Pictures to rows: read, fed, reversed some at a time, and what there is to say of each x_hat."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from revgraph import finite, neuron, picture, runtime
from revgraph.capture import exclusive
from revgraph.dataset import places
from revgraph.dataset.output import Row
from revgraph.errors import RevgraphError
from revgraph.explain import probability
from revgraph.feeding import Feeder
from revgraph.neuron import Neuron
from revgraph.pair import Compiled
from revgraph.reading import read_bytes
from revgraph.recipe import Recipe
from revgraph.runtime import Device
from revgraph.session import Session

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the rows of a picture depend on, but for the picture.

    Attributes:
        pair: The network's compilation.
        recipe: How pictures are fed.
        neurons: A row for each.
        seed: Of what `random` and `mixture` draw, for each picture anew.
        maps: One of MAPS.
    """

    pair: Compiled
    recipe: Recipe
    neurons: tuple[Neuron, ...]
    seed: int = 0
    maps: str = "none"

    def settings(self) -> dict[str, Any]:
        """As they are noted beside the rows."""
        return {
            "network": self.pair.metadata["digest"],
            "variant": self.pair.variant,
            "at": self.pair.at,
            "recipe": self.recipe.digest,
            "neurons": [_noted(chosen) for chosen in self.neurons],
            "seed": self.seed,
            "maps": self.maps,
        }


@dataclass(frozen=True, slots=True)
class Means:
    """By what a data set is explained; its rows depend on none of it, but for rounding.

    Attributes:
        engine: One of ENGINES.
        device: As for Session.
        threads: onnxruntime's for each batch; so many cores fewer batches are under way on a CPU.
        batch: How many pictures run at once; 0 is one on a CPU, where more gain nothing, and 32 on a GPU.
    """

    engine: str = "local"
    device: str = "cpu"
    threads: int = 1
    batch: int = 0

    def workers(self, cores: int) -> int:
        """How many batches are under way on so many cores."""
        return max(1, cores // self.threads if self.kind == "cpu" else cores)

    @property
    def kind(self) -> str:
        return Device.of(self.device).kind

    def explaining(self, asked: Asked) -> "Explaining":
        """What makes the rows."""
        return Explaining(asked, self.threads, self.device, self.batch or (1 if self.kind == "cpu" else 32))


def _noted(chosen: Neuron) -> str:
    """A neuron, or a file by what it holds."""
    if chosen.kind != "file":
        return str(chosen)
    try:
        return hashlib.sha256(read_bytes(Path(chosen.file))).hexdigest()
    except OSError as error:
        why = error.strerror or str(error)
        raise RevgraphError(f"cannot project on '{chosen}'", why, "a .npy file of numbers") from error


class Picture(NamedTuple):
    """One of a data set.

    Attributes:
        number: Its place in the data set, from 0.
        path: Where it is.
        content: What `places.fetch` gave, if it was fetched.
    """

    number: int
    path: str
    content: bytes | RevgraphError | None = None


class Explaining:
    """Makes rows of pictures; it may be called from several threads at once.

    Args:
        asked: What of them.
        threads: onnxruntime's threads for each call.
        device: Where to run.
        batch: How many pictures one run has, at most.

    Attributes:
        batch: The same, or 1 where the network takes one picture at a time.

    Raises:
        NoPicturesError: The network does not take pictures, or none of the recipe's kind.
        RevgraphError: It cannot be run.
    """

    def __init__(self, asked: Asked, threads: int = 1, device: str = "cpu", batch: int = 1) -> None:
        self._asked, self._feeder = asked, Feeder(asked.pair, asked.recipe)
        self.batch = 1 if isinstance(asked.pair.x_shape[0], int) else batch
        fused = [chosen.kind for chosen in asked.neurons] == ["max"]
        self._run = (_Fused if fused else _Pair)(asked.pair, threads, device, self.batch)

    def rows(self, pictures: Sequence[Picture]) -> list[Row]:
        """A row for each neuron of each picture, in order; of what cannot be explained, with the error.

        Args:
            pictures: At most `batch`.

        Raises:
            RevgraphError: There is no such neuron, or onnxruntime cannot run the network.
        """
        read = [self._read(each) for each in pictures]
        fed = {p.number: x for p, x in zip(pictures, read, strict=True) if isinstance(x, np.ndarray)}
        explained = self._explained(fed)
        rows: list[Row] = []
        for each, x in zip(pictures, read, strict=True):
            failed = [{"error": str(x)}] * len(self._asked.neurons) if isinstance(x, RevgraphError) else None
            mine = zip(self._asked.neurons, failed or next(explained), strict=True)
            path = places.shown(each.path)
            rows += [{"path": path, "neuron": str(chosen), **row} for chosen, row in mine]
        return rows

    def _explained(self, fed: Mapping[int, np.ndarray]) -> Iterator[list[Row]]:
        """The rows of each picture, from its place in the data set and its x."""
        if not fed:
            return
        x = np.concatenate(list(fed.values()))
        outputs, p, x_hats = self._run(x, lambda y: self._project(list(fed), y))
        for k in range(len(fed)):
            own = {name: values[k] for name, values in outputs.items()}
            yield [self._row(own, p[k, n], x_hat[k]) for n, x_hat in enumerate(x_hats)]

    def _read(self, given: Picture) -> np.ndarray | RevgraphError:
        try:
            return self._feeder.feed(places.read(given.path, given.content))
        except RevgraphError as error:
            return error

    def _project(self, numbers: Sequence[int], y: np.ndarray) -> np.ndarray:
        """p for each picture and neuron, (N, K, *y.shape[1:]); all zero where y is not finite."""
        p = np.zeros((len(y), len(self._asked.neurons), *y.shape[1:]), y.dtype)
        for k, number in enumerate(numbers):
            rng = np.random.default_rng([self._asked.seed, number])
            for n, chosen in enumerate(self._asked.neurons):
                if finite.is_finite(y[k]):
                    p[k, n] = neuron.project(chosen, y[k : k + 1], rng)[0]
        return p

    def _row(self, outputs: Arrays, p: np.ndarray, x_hat: np.ndarray) -> Row:
        """What there is to say of one image's x_hat."""
        y = outputs[self._asked.pair.at]
        for what, values in ("y", y), ("x_hat", x_hat):
            if not finite.is_finite(values):
                why = f"{finite.said(values)} (revgraph run names the layer)"
                return {"error": f"{what} holds {why}"}
        peak = neuron.describe(p, y)
        label = self._feeder.label(peak.channel)
        chance = None if label is None else probability(next(iter(outputs.values())), y, peak)
        saliency = picture.saliency(self._feeder.rgb(x_hat)).astype(np.float64)
        return {
            **peak._asdict(),
            "class": label,
            "probability": chance,
            "x_hat_min": float(x_hat.min()),
            "x_hat_max": float(x_hat.max()),
            # Not linalg.norm: BLAS would wake threads of its own beside onnxruntime's, and take all cores.
            "x_hat_norm": float(np.sqrt(np.square(x_hat, dtype=np.float64).sum())),
            "saliency_mean": float(saliency.mean()),
            "saliency_max": float(saliency.max()),
            **_centre(saliency),
            **_MAPS[self._asked.maps](saliency),
        }


def _centre(saliency: np.ndarray) -> Row:
    """Where a map (H, W) has its centre of mass: 0 is the top or left edge, 1 the other; None of all zero."""
    total = saliency.sum()
    if total == 0:
        return {"saliency_row": None, "saliency_column": None}
    row, column = (
        (saliency.sum(1 - axis) @ (np.arange(n) + 0.5)) / (n * total) for axis, n in enumerate(saliency.shape)
    )
    return {"saliency_row": float(row), "saliency_column": float(column)}


def _png(saliency: np.ndarray) -> Row:
    return {"map": picture.png(picture.grey(saliency[None]))}


def _float16(saliency: np.ndarray) -> Row:
    return {"map": (saliency / (saliency.max() or 1)).astype(np.float16)}


_MAPS: Mapping[str, Callable[[np.ndarray], Row]] = {"none": lambda _: {}, "png": _png, "float16": _float16}

# ----- Both graphs run -----

Project = Callable[[np.ndarray], np.ndarray]
"""From y (N, ...) to p (N, K, ...)."""

Found = tuple[Arrays, np.ndarray, Sequence[np.ndarray]]
"""The network's outputs, p, and K times x_hat (N, ...)."""


class _Fused:
    """The fused model, which itself chooses the strongest neuron; p is made for the rows' sake."""

    def __init__(self, pair: Compiled, threads: int, device: str, batch: int) -> None:
        self._pair, self._device = pair, Device.of(device)
        if self._device.kind == "cuda":
            runtime.check_cuda()
        fused = pair.light_fused("max")
        images = pair.x_shape[0]

        def configure(options: Any) -> None:
            if batch == 1 and isinstance(images, str):  # onnxruntime fuses more where it knows it
                options.add_free_dimension_override_by_name(images, 1)

        # Kept here, for onnxruntime reads these arrays where they are and does not keep them itself.
        self._weights = runtime.ort_values(fused.weights)
        self._session = runtime.open_light(fused, self._weights, threads, configure, self._device)
        self._names = [output.name for output in self._session.get_outputs()]
        self._alone = exclusive(self._device)  # memory for one batch at a time

    def __call__(self, x: np.ndarray, project: Project) -> Found:
        with self._alone:
            results = runtime.run(self._session, self._names, {self._pair.input: x}, self._device)
            outputs = {name: value.numpy() for name, value in zip(self._names, results, strict=True)}
        x_hat = outputs.pop("x_hat")
        return outputs, project(outputs[self._pair.at]), [x_hat]


class _Pair:
    """The two graphs: whatever the neurons are, the first runs once for all of them."""

    def __init__(self, pair: Compiled, threads: int, device: str, _: int) -> None:
        self._session = Session(pair, threads=threads, device=device, cuda_graph=False, check=False)

    def __call__(self, x: np.ndarray, project: Project) -> Found:
        trace = self._session.forward(x)
        p = project(trace.y)
        return trace.outputs, p, [self._session.reverse(trace, each) for each in np.moveaxis(p, 1, 0)]
