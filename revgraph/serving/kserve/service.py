"""What is served: pictures, tensors or bottlenecks in; scores, x_hat and pictures of it out.

A request becomes a `Job`, checked; jobs of one key run together; each answer is then finished by itself, so
that some pictures are read and drawn while others run.
"""

import io
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from PIL import Image

from revgraph import finite, neuron, picture
from revgraph.declared import dtype_of, in_numbers, shape_of
from revgraph.errors import RevgraphError
from revgraph.feeding import Feeder
from revgraph.neuron import Neuron
from revgraph.runtime import ort_value
from revgraph.serving import LIMITS
from revgraph.serving.kserve import bottleneck
from revgraph.session import Session, Trace

Arrays = Mapping[str, np.ndarray]

X, PICTURE, BOTTLENECK = "x", "picture", "bottleneck"
CLASS, P = "class", "p"
X_HAT, X_HAT_PNG, SALIENCY_PNG = "x_hat", "x_hat_png", "saliency_png"
CHANNEL, LABEL = "channel", "label"

REVERSED = {X_HAT, X_HAT_PNG, SALIENCY_PNG}
"""The outputs that need the reversed graph."""

PIXELS = 25_000_000
"""Most pixels of a picture: some hundred bytes of PNG can claim gigabytes."""

BYTES = np.dtype(object)
INT64 = np.dtype(np.int64)


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or an output as clients see it; bytes are of dtype object, and -1 is a free dimension."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] = (-1,)

    def check(self, given: np.ndarray) -> None:
        """Refuse what does not fit with a RevgraphError."""
        fits = len(given.shape) == len(self.shape) and all(
            n == m or (m == -1 and n > 0) for n, m in zip(given.shape, self.shape, strict=True)
        )
        if given.dtype != self.dtype or not fits:
            what = f"input '{self.name}' does not fit: it is {_kind(given.dtype)} {list(given.shape)}"
            raise RevgraphError(what, f"{_kind(self.dtype)} {list(self.shape)} is wanted", "-1 may be any")


@dataclass(frozen=True, slots=True)
class Job:
    """A request, checked.

    Attributes:
        wanted: The names of outputs.
        images: x of N images, (N, ...), or y and the taps of their bottleneck.
        chosen: p, (P, *y.shape[1:]), or a neuron for each of its rows; P = N, or N = 1.
        key: What jobs that run together have in common; None for those that run alone.
    """

    wanted: tuple[str, ...]
    images: Arrays
    chosen: np.ndarray | Sequence[Neuron]
    key: Hashable

    @property
    def rows(self) -> int:
        """N."""
        return len(next(iter(self.images.values())))

    @property
    def reverses(self) -> bool:
        return not REVERSED.isdisjoint(self.wanted)

    def p(self, y: np.ndarray) -> np.ndarray:
        """The projections for y (N, ...)."""
        if isinstance(self.chosen, np.ndarray):
            if self.chosen.shape[1:] != y.shape[1:]:
                why = f"y is {list(y.shape)}"
                raise RevgraphError(
                    f"p does not fit: it is {list(self.chosen.shape)}", why, "shape it like y"
                )
            return self.chosen
        rng = np.random.default_rng(0)  # no neuron that a client can name draws from it
        images = itertools.cycle(y[i : i + 1] for i in range(len(y)))
        return np.concatenate(
            [neuron.project(n, one, rng) for n, one in zip(self.chosen, images, strict=False)]
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A job's own part of what a batch gave.

    Attributes:
        outputs: The network's, and x_hat, by name.
        y: (N, ...).
        p: (P, ...).
        taps: r, where it is wanted.
    """

    outputs: dict[str, np.ndarray]
    y: np.ndarray
    p: np.ndarray
    taps: Arrays


class Service:
    """A session as clients see it.

    Args:
        session: Runs the compilation, whose bottleneck is offered where it is packed and of a fixed size.
        feeder: How pictures enter the network and come back; without it there are tensors alone.
        most: How many images, and rows of p, one request may have.

    Attributes:
        name: The network's.
        inputs: By name. A request gives one of x, picture and bottleneck, and at most one of class and p.
        outputs: By name.

    Raises:
        RevgraphError: The network has inputs beside x, or an output that is called like one of the service's.
    """

    def __init__(self, session: Session, feeder: Feeder | None = None, most: int = LIMITS.batch) -> None:
        self._session, self._feeder, self._most = session, feeder, most
        pair = session.pair
        self.name, self._digest = pair.name, pair.metadata["digest"]
        graph = pair.light_forward.model.graph
        if others := [value.name for value in graph.input if value.name != pair.input]:
            why = f"it has inputs beside '{pair.input}': {', '.join(others)}"
            raise RevgraphError(f"cannot serve '{self.name}'", why, "a network with one input")
        own = {value.name: _tensor(value) for value in graph.output}
        taps = [own.pop(name) for name in pair.taps]
        self._y = own[pair.at]
        self._kept = {tensor.name: tensor for tensor in (self._y, *taps)}
        x = Tensor(X, session.x_dtype, in_numbers(session.x_shape))
        self._joins = x.shape[0] == -1
        sizes = [np.prod(t.shape[1:], dtype=int) * t.dtype.itemsize for t in self._kept.values()]
        self._kept_bytes = int(sum(sizes)) + bottleneck.HEADER * (len(sizes) + 1)
        # Of a free size the bottleneck itself would say how much memory it takes.
        fixed = all(-1 not in tensor.shape[1:] for tensor in (x, *self._kept.values()))
        packed = fixed and pair.metadata["bottleneck"] == "packed"
        given = [x, Tensor(CLASS, INT64), Tensor(P, self._y.dtype, (-1, *self._y.shape[1:]))]
        given += [Tensor(name, BYTES) for name in [PICTURE] * bool(feeder) + [BOTTLENECK] * packed]
        self.inputs = {tensor.name: tensor for tensor in given}
        self._made = dict(self._makers(packed))
        made = [Tensor(name, INT64 if name == CHANNEL else BYTES) for name in self._made]
        self.outputs = own | {t.name: t for t in [Tensor(X_HAT, x.dtype, (-1, *x.shape[1:])), *made]}
        if taken := own.keys() & self._made.keys():
            why = f"its output '{min(taken)}' is called like one of the server's"
            raise RevgraphError(f"cannot serve '{self.name}'", why, "rename it")
        self._usual = (*own, X_HAT)

    def warm_up(self) -> None:
        """Run once, so that the first client does not wait for it; not where the size of x is free."""
        shape = self.inputs[X].shape[1:]
        if self._feeder is not None:
            shape = self._feeder.feed(Image.new("RGB", (64, 64))).shape[1:]
        if -1 not in shape:
            self.run([self.job({X: np.zeros((1, *shape), self.inputs[X].dtype)})])

    # ----- A request is checked -----

    def job(self, given: Arrays, wanted: Sequence[str] = ()) -> Job:
        """What a request asks for.

        Args:
            given: Its inputs by name; of bytes, an array of objects.
            wanted: The outputs' names; none for the network's own (y alone of a bottleneck) and x_hat.

        Raises:
            RevgraphError: It asks for what there is not, or an input does not fit.
        """
        wanted = tuple(dict.fromkeys(wanted)) or (
            (self._y.name, X_HAT) if BOTTLENECK in given else self._usual
        )
        for what, names, known in ("input", given, self.inputs), ("output", wanted, self.outputs):
            if unknown := [name for name in names if name not in known]:
                raise RevgraphError(
                    f"unknown {what} '{unknown[0]}'", f"'{self.name}' has none", ", ".join(known)
                )
        for name, array in given.items():
            self.inputs[name].check(array)
            finite.check("cannot explain this", f"input '{name}'", array)
            if len(array) > self._most:  # a hundred bytes of a picture or of a class become megabytes
                what, why = f"input '{name}' has {len(array)} rows", f"the server takes {self._most} at once"
                raise RevgraphError(what, why, "send several requests")
        images = self._images(given)
        count = len(next(iter(images.values())))
        chosen = self._chosen(given, count)
        if count not in (1, len(chosen)):
            why = f"there are {len(chosen)} for {count} images"
            raise RevgraphError("cannot tell which neuron is whose", why, "one for each, or one image")
        shapes = tuple((name, array.shape[1:]) for name, array in images.items())
        joins = self._joins and len(chosen) == count
        job = Job(wanted, images, chosen, None)
        return replace(job, key=(shapes, job.reverses, BOTTLENECK in wanted)) if joins else job

    def _images(self, given: Arrays) -> Arrays:
        source = _one_of(given, X, PICTURE, BOTTLENECK)
        if source is None:
            raise RevgraphError("nothing to explain", "no image was given", f"one of {X}, {PICTURE}")
        if source == X:
            return {X: given[X]}
        read = self._fed if source == PICTURE else self._unpacked
        images = [read(data) for data in given[source]]
        if len({tuple(array.shape for array in image.values()) for image in images}) > 1:
            raise RevgraphError(
                "cannot run these images at once", "they differ in size", "send each by itself"
            )
        return {name: np.concatenate([image[name] for image in images]) for name in images[0]}

    def _fed(self, data: bytes) -> Arrays:
        assert self._feeder is not None
        return {X: self._feeder.feed(picture.decode(io.BytesIO(data), most=PIXELS))}

    def _unpacked(self, data: bytes) -> Arrays:
        found = bottleneck.unpack(data, self._kept_bytes, self._digest)
        if found.keys() != self._kept.keys():
            raise RevgraphError("cannot read this bottleneck", "it holds other tensors", "send it as it came")
        for name, tensor in self._kept.items():
            tensor.check(found[name])
            finite.check("cannot read this bottleneck", f"'{name}'", found[name], "send it as it came")
            if len(found[name]) != 1:
                raise RevgraphError(
                    "cannot read this bottleneck", "it is not of one image", "send it as it came"
                )
        return found

    def _chosen(self, given: Arrays, count: int) -> np.ndarray | list[Neuron]:
        how = _one_of(given, CLASS, P)
        if how is None:
            return [Neuron("max")] * count
        if how == P:
            return given[P]
        (channels,) = self._y.shape[1:2] or (0,)
        for c in given[CLASS].tolist():
            if c < 0 or c >= channels != -1:
                why = f"'{self._y.name}' has {channels} channels" if channels != -1 else "it is below 0"
                raise RevgraphError(f"unknown class {c}", why, "they count from 0")
        return [Neuron("class", (c,)) for c in given[CLASS].tolist()]

    # ----- Jobs of one key are run -----

    def run(self, jobs: Sequence[Job]) -> list[Answer]:
        """Each job's part of one run of all.

        Raises:
            NotFiniteError: y or x_hat is not finite.
        RevgraphError: onnxruntime cannot run the network on one of them.
        """
        images = {name: _joined([job.images[name] for job in jobs]) for name in jobs[0].images}
        trace = self._session.forward(images[X]) if X in images else self._resumed(images)
        kept = trace.taps if BOTTLENECK in jobs[0].wanted else {}
        taps = {name: value.numpy() for name, value in kept.items()}
        mine = list(_slices(job.rows for job in jobs))
        ps = [job.p(trace.y[rows]) for job, rows in zip(jobs, mine, strict=True)]
        answers = [
            Answer(_rows(trace.outputs, rows), trace.y[rows], p, _rows(taps, rows))
            for rows, p in zip(mine, ps, strict=True)
        ]
        if jobs[0].reverses:
            x_hat = self._session.reverse(trace, _joined(ps))
            for answer, rows in zip(answers, _slices(map(len, ps)), strict=True):
                answer.outputs[X_HAT] = x_hat[rows]
        return answers

    def _resumed(self, images: Arrays) -> Trace:
        """The trace that bottlenecks are of; the network's outputs beside y are not in them."""
        y = images[self._y.name]
        taps = {name: ort_value(array) for name, array in images.items() if name != self._y.name}
        return Trace(y, {self._y.name: y}, taps)

    # ----- An answer is finished -----

    def finish(self, job: Job, answer: Answer) -> dict[str, np.ndarray]:
        """The outputs that the job wants, by name.

        Raises:
            NotFiniteError: One of them holds NaN.
        RevgraphError: A bottleneck does not tell one of them.
        """
        return {name: self._output(name, answer) for name in job.wanted}

    def _output(self, name: str, answer: Answer) -> np.ndarray:
        if name in self._made:
            return np.array(self._made[name](answer), self.outputs[name].dtype)
        if name not in answer.outputs:
            remedy = "keep it from the request that gave the bottleneck"
            raise RevgraphError(f"cannot tell '{name}'", "the bottleneck does not hold it", remedy)
        found = answer.outputs[name]
        if found.dtype.kind == "f" and np.isnan(found).any():  # an infinity may be the logarithm of zero
            finite.check(f"cannot tell '{name}'", "it", found, "ask for others, or check the model")
        return found

    def _makers(self, packed: bool) -> Iterator[tuple[str, Callable[[Answer], list[Any]]]]:
        """The outputs that are made of an answer, and their values in order."""
        feeder = self._feeder
        yield CHANNEL, _channels
        if feeder is not None:
            if feeder.label(0) is not None:
                yield LABEL, lambda answer: [(feeder.label(c) or "").encode() for c in _channels(answer)]
            yield X_HAT_PNG, lambda answer: [picture.png(picture.tone_map(x)) for x in self._rgb(answer)]
            yield SALIENCY_PNG, lambda answer: [picture.png(picture.grey(x)) for x in self._rgb(answer)]
        if packed:
            yield BOTTLENECK, self._packed

    def _rgb(self, answer: Answer) -> Iterator[np.ndarray]:
        assert self._feeder is not None
        return map(self._feeder.rgb, answer.outputs[X_HAT])

    def _packed(self, answer: Answer) -> list[bytes]:
        kept = {self._y.name: answer.y, **answer.taps}
        return [bottleneck.pack(_rows(kept, slice(i, i + 1)), self._digest) for i in range(len(answer.y))]


# ----- Arrays, and what they are called -----


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    return Tensor(value.name, dtype_of(value), in_numbers(shape_of(value)))


def _kind(dtype: np.dtype[Any]) -> str:
    return "bytes" if dtype == BYTES else dtype.name


def _one_of(given: Arrays, *names: str) -> str | None:
    found = [name for name in names if name in given]
    if len(found) > 1:
        raise RevgraphError(f"'{found[0]}' and '{found[1]}' were given", "one says it all", "leave one out")
    return found[0] if found else None


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _slices(counts: Iterable[int]) -> Iterator[slice]:
    return itertools.starmap(slice, itertools.pairwise(itertools.accumulate(counts, initial=0)))


def _rows(arrays: Arrays, rows: slice) -> dict[str, np.ndarray]:
    return {name: array[rows] for name, array in arrays.items()}


def _channels(answer: Answer) -> list[int]:
    """The only channel that each row of p touches; -1 where there are several."""
    images = itertools.cycle(answer.y)
    peaks = (neuron.describe(p, y) for p, y in zip(answer.p, images, strict=False))
    return [-1 if peak.channel is None else peak.channel for peak in peaks]
