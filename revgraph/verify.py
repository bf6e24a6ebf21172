"""The proof that a compilation is right, on its own network, by the paper's equations in float64."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from revgraph import compiler, finite, network, reference
from revgraph.declared import dtype_of, shape_of
from revgraph.errors import RevgraphError
from revgraph.network import Source
from revgraph.pair import Compiled
from revgraph.runtime import Device, exposed, open_light, ort_values, run, run_each_node
from revgraph.session import Session, Trace
from revgraph.weights import LightModel

Array = np.ndarray
Arrays = dict[str, Array]

SIZES = (64, 128, 224, 299, 32, 28)
"""Heights and widths tried, in this order, where the network leaves them free."""

DIRECTIONS = 2

# Largest relative errors that pass. float32 sums of thousands of products err by about 1e-6 of the largest
# result, normalisations by ten times that; float16 keeps three digits.
SINGLE = 1e-4
HALF = 3e-2
# Over a whole network, masks and switches that are all but ties may be decided otherwise: in float64, in
# another batch. One of those shows as about 1e-3, anything wrong as 1.
WHOLE = 0.1
# In float16 some hundred of them are.
PRECISION = 0.5


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the proof.

    Attributes:
        what: What was held against what.
        passed: Whether they agree; None where the check does not apply.
        figure: The largest error found, relative to the largest number; None where there is none.
        detail: Where that was, or why the check does not apply.
    """

    what: str
    passed: bool | None
    figure: float | None
    detail: str

    @property
    def verdict(self) -> str:
        return {True: "PASSED", False: "FAILED", None: "SKIPPED"}[self.passed]


def verify(
    pair: Compiled,
    model: str | Path | onnx.ModelProto | None = None,
    *,
    threads: int = 0,
    device: str = "cpu",
    seed: int = 0,
) -> Iterator[Check]:
    """Prove a compilation right, or find where it is wrong, on random inputs.

    Args:
        pair: The compilation.
        model: What it was compiled from, to hold the forward outputs against.
        threads: onnxruntime's.
        device: Where to run what is proved; as for Session.
        seed: Of the random inputs.

    Yields:
        The checks, each as soon as it is done.

    Raises:
        RevgraphError: The network does not run on a random input, or `model` cannot be read.
    """
    source = None if model is None else network.read(model)
    proof = _Proof(pair, threads, device, seed)
    yield proof.numbers()
    yield proof.layers()
    yield proof.whole()
    yield proof.derivative()
    yield proof.linear()
    yield proof.signs()
    yield proof.outputs(source)
    yield proof.batch()
    yield proof.projections()
    if proof.half:
        yield proof.rows()
    if pair.metadata["precision"] == "fp16":
        yield proof.precision(source)


class _Proof:
    """What the checks share: a random image, or as many as the batch is fixed at, and what becomes of it."""

    def __init__(self, pair: Compiled, threads: int, device: str, seed: int) -> None:
        self.pair, self.threads, self.rng = pair, threads, np.random.default_rng(seed)
        self.device = Device.of(device)
        self.half = bool(pair.scales) or pair.metadata["precision"] == "fp16"
        self.session = Session(pair, threads=threads, device=device, check=False)
        self.feeds, self.trace = self._first_run()

    # ----- Inputs -----

    def _first_run(self) -> tuple[Arrays, Trace]:
        """Random inputs of one image, of a size that the network takes, and their trace."""
        refused = None
        for size in SIZES:
            feeds = {v.name: self._random(v, size) for v in self.pair.light_forward.model.graph.input}
            try:
                trace = self._forward(feeds)
            except RevgraphError as error:
                refused = refused or error
                continue
            if trace.y.size:
                return feeds, trace
        if refused:
            raise refused
        why = f"y is empty for every size up to {SIZES[-1]}"
        raise RevgraphError(f"cannot verify '{self.pair.name}'", why, "fix the model's input size")

    def _random(self, value: onnx.ValueInfoProto, size: int) -> Array:
        dims = [n if isinstance(n, int) else size if i > 1 else 1 for i, n in enumerate(shape_of(value))]
        dtype = dtype_of(value)
        if np.issubdtype(dtype, np.floating):
            return self.rng.standard_normal(dims).astype(dtype)
        return self.rng.integers(0, 2 if dtype.kind == "b" else 100, dims).astype(dtype)

    def _forward(self, feeds: Arrays) -> Trace:
        others = {name: value for name, value in feeds.items() if name != self.pair.input}
        return self.session.forward(feeds[self.pair.input], **others)

    def _p(self, rows: int | None = None) -> Array:
        y = self.trace.y
        return self.rng.standard_normal((rows or len(y), *y.shape[1:])).astype(y.dtype)

    # ----- What onnxruntime and the equations make of them -----

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The user's network up to y, out of the forward graph."""
        model, needed = self.pair.forward, {self.pair.at}
        kept = []
        for node in reversed(model.graph.node):
            if not needed.isdisjoint(node.output):
                needed.update(node.input)
                kept.append(node)
        del model.graph.node[:]
        model.graph.node.extend(reversed(kept))
        return model

    @cached_property
    def values(self) -> Arrays:
        """Every tensor of the forward graph, as onnxruntime computes it."""
        if self.half:
            return run_each_node(self.pair.forward, self.feeds, self.device)
        light = self.pair.light_forward
        inner = [name for node in light.model.graph.node for name in node.output if name]
        given = {value.name for value in light.model.graph.output}
        outputs = self._run(exposed(light, [name for name in inner if name not in given]), inner, self.feeds)
        return self.feeds | outputs

    @cached_property
    def tensors(self) -> Arrays:
        """The same in float64, and the weights: every mask and switch is then read off the same numbers."""
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}
        return {name: _wide(value) for name, value in (weights | self.values).items()}

    @cached_property
    def axes(self) -> dict[str, Any]:
        """What the equations need to know of the variant."""
        pair = self.pair
        return {"variant": pair.variant, "at": pair.at, "to": pair.input, "lrn": pair.metadata["lrn"]}

    def _run(self, light: LightModel, names: list[str], feeds: Mapping[str, Any]) -> Arrays:
        session = open_light(light, ort_values(light.weights), self.threads, device=self.device)
        return {name: v.numpy() for name, v in zip(names, run(session, names, feeds), strict=True)}

    # ----- Finite numbers -----

    def numbers(self) -> Check:
        """Nothing is NaN or infinite, but for weights that mask what they are added to, and what they mask.

        Denormal weights are counted: a runtime may take them for zero.
        """
        what, weights = "finite numbers", self._weights
        counts = {name: finite.count(values) for name, values in weights.items()}
        masks = {name for name, found in counts.items() if found.infinite and not found.nan}
        layers = {tensor: self.values[tensor] for tensor in reversed(self.pair.signals)}
        masked = {name for name, values in layers.items() if masks and not np.isnan(values).any()}
        x_hats = {tensor: self.apart[1][x_hat] for x_hat, tensor in self.heads.items() if x_hat != "p"}
        for kind, tensors, excused in (
            ("weight", weights, masks),
            ("layer", layers, masked),
            ("x_hat of", x_hats, set[str]()),
        ):
            lost = (name for name in tensors if name not in excused and not finite.is_finite(tensors[name]))
            if name := next(lost, None):
                return Check(what, False, None, f"{kind} '{name}' holds {finite.said(tensors[name])}")
        denormal = sum(found.denormal for found in counts.values())
        detail = f"{denormal:,} weights are denormal, and may be taken for zero" if denormal else ""
        return Check(what, True, None, detail)

    @property
    def _weights(self) -> Arrays:
        """Those of the user's network up to y."""
        read = {name for node in self.model.graph.node for name in node.input}
        held = (tensor for tensor in self.model.graph.initializer if tensor.name in read)
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in held}

    # ----- (a) -----

    @cached_property
    def heads(self) -> dict[str, str]:
        """Each reversed tensor that is an x_hat, with the forward tensor nearest to y that it belongs to."""
        heads: dict[str, str] = {}
        for tensor, x_hat in self.pair.signals.items():
            heads.setdefault(x_hat, tensor)
        return heads

    @cached_property
    def apart(self) -> tuple[Arrays, Arrays]:
        """Every reversed layer run by itself: the random y_hat of each, and the x_hat that it gave.

        Each tensor between two layers is cut. So no layer rests on another, and none is fed what others
        left: errors do not add up, and no signal dies before it reaches the first layer. Only where signals
        are scaled each is what the layer before gave, for a scale is handed on past what is cut.
        """
        if self.half:
            given = {"p": self._p()} | {name: self.values[name] for name in self.pair.taps}
            back = self.pair.rescaled(run_each_node(self.pair.reversed, given, self.device))
            return back, back
        model = onnx.ModelProto()
        model.CopyFrom(self.pair.light_reversed.model)
        y_hats = {x_hat: self._like(tensor) for x_hat, tensor in self.heads.items() if x_hat != "x_hat"}
        inner = [name for name in y_hats if name != "p"]
        for node in model.graph.node:
            for i, name in enumerate(node.input):
                node.input[i] = f"{name}/given" if name in inner else name
        for name in inner:
            kind = onnx.helper.np_dtype_to_tensor_dtype(y_hats[name].dtype)
            model.graph.input.append(onnx.helper.make_tensor_value_info(f"{name}/given", kind, None))
        light = LightModel(model, self.pair.light_reversed.weights)
        taps = {name: self.values[name] for name in self.pair.taps}
        feeds = {name if name == "p" else f"{name}/given": value for name, value in y_hats.items()}
        return y_hats, self._run(exposed(light, inner), [*inner, "x_hat"], feeds | taps)

    def _like(self, tensor: str) -> Array:
        value = self.values[tensor]
        return self.rng.standard_normal(value.shape).astype(value.dtype)

    def layers(self) -> Check:
        """(a), layer by layer."""
        what, signals = "reversed layers, one by one", self.pair.signals
        y_hats, x_hats = self.apart
        given = {tensor: _wide(y_hats[x_hat]) for tensor, x_hat in signals.items() if x_hat in y_hats}
        expected = reference.reverse_layers(self.model, self.tensors, given, **self.axes)
        errors = {}
        for tensor, x_hat in signals.items():
            if tensor == self.pair.at:
                continue
            if tensor not in expected:
                why = f"the equations take '{tensor}' for the inside of a layer"
                return Check(what, False, None, why)
            actual = x_hats[x_hat] if self.heads[x_hat] == tensor else y_hats[x_hat]
            errors[tensor] = _relative(actual, expected[tensor])
        worst = max(errors, key=lambda tensor: np.nan_to_num(errors[tensor], nan=np.inf))
        detail = f"{len(errors)} tensors, worst at '{worst}'"
        return Check(what, bool(errors[worst] <= self._rounding), errors[worst], detail)

    def whole(self) -> Check:
        """(a), from y to x."""
        if self.half:
            p, x_hat = self.apart[0]["p"], self.apart[1]["x_hat"]
        else:
            p = self._p()
            x_hat = self.session.reverse(self.trace, p)
        expected = reference.reverse(self.model, self.tensors, p=p, **self.axes)[self.pair.input]
        error = _relative(x_hat, expected, np.linalg.norm)
        return Check("reversed network, from y to x", bool(error <= WHOLE), error, _alive(x_hat))

    # ----- (b) -----

    def derivative(self) -> Check:
        """Eq. (5): SaliNet's x_hat is the derivative of <p, y>."""
        what, pair, x = "derivative by central differences", self.pair, self.feeds[self.pair.input]
        if pair.variant != "salinet" or pair.metadata["lrn"] != "bp":
            return Check(what, None, None, f"only salinet with LRN by BP is one, not {pair.variant}")
        if not np.issubdtype(x.dtype, np.floating):
            return Check(what, None, None, f"x is {x.dtype}")
        p = self._p()
        x_hat = _wide(self.session.reverse(self.trace, p))
        errors = []
        for _ in range(DIRECTIONS):
            d = self.rng.standard_normal(x.shape)
            rate = (self._projected(x + 1e-6 * d, p) - self._projected(x - 1e-6 * d, p)) / 2e-6
            errors.append(abs(rate - (x_hat * d).sum()) / max(np.linalg.norm(x_hat), 1e-30))
        worst = float(max(errors))
        return Check(what, worst <= WHOLE, worst, f"{DIRECTIONS} random directions")

    def _projected(self, x: Array, p: Array) -> float:
        y = reference.forward(self.model, self.feeds | {self.pair.input: x})[self.pair.at]
        return float((y * p).sum())

    # ----- (c), (d) -----

    def linear(self) -> Check:
        """Linear in p, or positively homogeneous where what comes back is rectified."""
        p, q = self._p(), self._p()
        first, second = (self.session.reverse(self.trace, each) for each in (p, q))
        if self.pair.variant.startswith(("deconvnet", "desalinet")):
            what, error = (
                "positively homogeneous",
                _relative(self.session.reverse(self.trace, 3 * p), 3 * first),
            )
        else:
            both = self.session.reverse(self.trace, 2 * p - 3 * q)
            what, error = "linear", _relative(both, 2 * first - 3 * second)
        return Check(f"{what} in p", bool(error <= self._rounding), error, _alive(first))

    @property
    def _rounding(self) -> float:
        return HALF if self.half else SINGLE

    def signs(self) -> Check:
        """Eq. (10), what is rectified and what is masked, at every ReLU by itself."""
        what, variant = "signs at each ReLU, Eq. (10)", self.pair.variant.removesuffix("-centre")
        if variant == "identity":
            return Check(what, None, None, "identity passes ReLU by")
        relus = [node for node in self.model.graph.node if node.op_type == "Relu" and self._alone(node)]
        if not relus:
            return Check(what, None, None, "no ReLU whose x_hat can be told from others'")
        wrong = 0
        for node in relus:
            y, x_hat = self.values[node.output[0]], self.apart[1][self.pair.signals[node.input[0]]]
            wrong += int((np.sign(y) * np.sign(x_hat) < 0).sum()) if variant != "salinet" else 0
            wrong += int((x_hat[y == 0] != 0).sum()) if variant != "deconvnet" else 0
        return Check(what, not wrong, None, f"{len(relus)} ReLUs, {wrong} units with the wrong sign")

    def _alone(self, node: onnx.NodeProto) -> bool:
        """Whether the node alone gives its input's x_hat."""
        signals = self.pair.signals
        readers = [n for n in self.model.graph.node if node.input[0] in n.input and n.output[0] in signals]
        x_hat = signals.get(node.input[0], "p")
        return readers == [node] and self.heads.get(x_hat) == node.input[0] and x_hat != "p"

    # ----- (e), (f) -----

    def outputs(self, source: Source | None) -> Check:
        """The forward graph's outputs against the model's, which `network.read` gave."""
        what = "outputs of the model"
        if source is None:
            return Check(what, None, None, "no model was given")
        if source.sha256 != self.pair.metadata["source_sha256"]:
            return Check(what, False, None, "it was compiled from another model")
        names = [value.name for value in source.light.model.graph.output]
        if missing := [name for name in names if name not in self.trace.outputs]:
            return Check(what, False, None, f"the forward graph lacks '{missing[0]}'")
        expected = self._run(source.light, names, self.feeds)
        found = self.values if self.half else self.trace.outputs
        actual = {name: found[name].reshape(expected[name].shape) for name in names}
        error = max(_relative(actual[name], expected[name]) for name in names)
        return Check(what, bool(error <= self._rounding), error, ", ".join(f"'{name}'" for name in names))

    def batch(self) -> Check:
        """Two images at once against one by one, bottleneck and all."""
        what = "two images as one batch"
        if isinstance(self.session.x_shape[0], int):
            return Check(what, None, None, f"the batch is fixed at {self.session.x_shape[0]}")
        other = {name: x[..., ::-1] if x.ndim > 2 else x for name, x in self.feeds.items()}
        both = {name: np.concatenate([x, other[name]]) if x.ndim else x for name, x in self.feeds.items()}
        try:
            trace = self._forward(both)
        except RevgraphError as refused:
            return Check(what, *self._refused(both, refused))
        p, images = self._p(2), (self.feeds, other)
        one_by_one = [self.session.reverse(self._forward(f), p[i : i + 1]) for i, f in enumerate(images)]
        x_hat = self.session.reverse(trace, p)
        error = _relative(x_hat, np.concatenate(one_by_one), np.linalg.norm)
        return Check(what, bool(error <= WHOLE), error, _alive(x_hat))

    def _refused(self, feeds: Arrays, error: RevgraphError) -> tuple[bool | None, None, str]:
        """Whether it is the network itself that does not run, or what the compilation added to it."""
        try:
            self._run(self.pair.light_forward, list(self.trace.outputs), feeds)
        except RevgraphError:
            return None, None, "the network itself runs for one image only"
        return False, None, error.why

    def projections(self) -> Check:
        """P rows on one image against P runs."""
        what = "projections of one image at once"
        if len(self.trace.y) != 1:
            return Check(what, None, None, f"the batch is fixed at {len(self.trace.y)}")
        p = self._p(3)
        runs = np.concatenate([self.session.reverse(self.trace, row[None]) for row in p])
        error = _relative(self.session.reverse(self.trace, p), runs)
        return Check(what, bool(error <= self._rounding), error, _alive(runs))

    # ----- float16 -----

    def rows(self) -> Check:
        """One neuron in rows of unlike size, in float16 node by node: each row has its own scale."""
        what, y = "rows of other sizes", self.trace.y
        if len(y) != 1:
            return Check(what, None, None, f"the batch is fixed at {len(y)}")
        neuron = np.zeros_like(y)
        neuron.flat[int(np.argmax(np.abs(y)))] = 1
        sizes = np.array([1, 2.0**-12, 2.0**12, 0], y.dtype)
        given = {"p": neuron * sizes.reshape(-1, *[1] * (y.ndim - 1))}
        given |= {name: self.values[name] for name in self.pair.taps}
        x_hats = run_each_node(self.pair.reversed, given, self.device)["x_hat"]
        expected = reference.reverse(self.model, self.tensors, p=neuron, **self.axes)[self.pair.input][0]
        errors = [_relative(row, size * expected) for row, size in zip(x_hats, _wide(sizes), strict=True)]
        return Check(what, bool(max(errors) <= self._rounding), max(errors), _alive(x_hats))

    def precision(self, source: Source | None) -> Check:
        """What float16 costs: x_hat against that of the same network in float32."""
        what, metadata = "float16 against float32", self.pair.metadata
        if source is None:
            return Check(what, None, None, "no model was given")
        options = {name: metadata[name] for name in ("variant", "at", "input", "lrn")}
        sliding = metadata["fully_convolutional"] == "true"
        whole = compiler.compile(source.light.whole(), fully_convolutional=sliding, **options)
        session = Session(whole, threads=self.threads)
        x = self.feeds[self.pair.input]
        trace = session.forward(x, **{name: v for name, v in self.feeds.items() if name != self.pair.input})
        p, x_hat = self.apart[0]["p"], self.apart[1]["x_hat"]
        error = _relative(x_hat, session.reverse(trace, p), np.linalg.norm)
        inner = (name for node in self.model.graph.node for name in node.output)
        lost = (name for name in inner if not np.isfinite(self.values[name]).all())
        detail = f"float16 overflows at '{name}'" if (name := next(lost, "")) else _alive(x_hat)
        return Check(what, bool(error <= PRECISION), error, detail)


def _wide(value: Array) -> Array:
    return value.astype(np.float64) if np.issubdtype(value.dtype, np.floating) else value


def _relative(
    actual: Array, expected: Array, size: Callable[[Array], Any] = lambda a: np.abs(a).max(initial=0)
) -> float:
    """The size of the error over that of what was expected; infinite where shapes differ."""
    if actual.shape != expected.shape:
        return float("inf")
    actual, expected = _wide(actual), _wide(expected)
    with np.errstate(invalid="ignore"):  # of infinities; NaN passes nothing
        error, scale = float(size((actual - expected).ravel())), float(size(expected.ravel()))
    return error / scale if scale else float("inf") if error else 0.0


def _alive(x_hat: Array) -> str:
    return "" if x_hat.any() else "all zero on both sides"
