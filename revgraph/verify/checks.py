"""The checks of the proof: each holds one thing of a run against another, and is a line of the report."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from revgraph import compiler, finite, reference
from revgraph.errors import RevgraphError
from revgraph.network import Source
from revgraph.runtime import run_each_node
from revgraph.session import Session
from revgraph.verify.run import Array, Arrays, Run, wide

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


def numbers(run: Run) -> Check:
    """Nothing is NaN or infinite, but for weights that mask what they are added to, and what they mask.

    Denormal weights are counted: a runtime may take them for zero.
    """
    what, weights = "finite numbers", run.weights
    counts = {name: finite.count(values) for name, values in weights.items()}
    masks = {name for name, found in counts.items() if found.infinite and not found.nan}
    layers = {tensor: run.values[tensor] for tensor in reversed(run.pair.signals)}
    masked = {name for name, values in layers.items() if masks and not np.isnan(values).any()}
    x_hats = {tensor: run.apart[1][x_hat] for x_hat, tensor in run.heads.items() if x_hat != "p"}
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


def layers(run: Run) -> Check:
    """(a), layer by layer."""
    what, signals = "reversed layers, one by one", run.pair.signals
    y_hats, x_hats = run.apart
    given = {tensor: wide(y_hats[x_hat]) for tensor, x_hat in signals.items() if x_hat in y_hats}
    expected = reference.reverse_layers(run.model, run.tensors, given, **run.axes)
    errors = {}
    for tensor, x_hat in signals.items():
        if tensor == run.pair.at:
            continue
        if tensor not in expected:
            why = f"the equations take '{tensor}' for the inside of a layer"
            return Check(what, False, None, why)
        actual = x_hats[x_hat] if run.heads[x_hat] == tensor else y_hats[x_hat]
        errors[tensor] = _relative(actual, expected[tensor])
    worst = max(errors, key=lambda tensor: np.nan_to_num(errors[tensor], nan=np.inf))
    detail = f"{len(errors)} tensors, worst at '{worst}'"
    return Check(what, bool(errors[worst] <= _rounding(run)), errors[worst], detail)


def whole(run: Run) -> Check:
    """(a), from y to x."""
    if run.half:
        p, x_hat = run.apart[0]["p"], run.apart[1]["x_hat"]
    else:
        p = run.p()
        x_hat = run.session.reverse(run.trace, p)
    expected = reference.reverse(run.model, run.tensors, p=p, **run.axes)[run.pair.input]
    error = _relative(x_hat, expected, np.linalg.norm)
    return Check("reversed network, from y to x", bool(error <= WHOLE), error, _alive(x_hat))


def derivative(run: Run) -> Check:
    """Eq. (5): SaliNet's x_hat is the derivative of <p, y>."""
    what, pair, x = "derivative by central differences", run.pair, run.feeds[run.pair.input]
    if pair.variant != "salinet" or pair.metadata["lrn"] != "bp":
        return Check(what, None, None, f"only salinet with LRN by BP is one, not {pair.variant}")
    if not np.issubdtype(x.dtype, np.floating):
        return Check(what, None, None, f"x is {x.dtype}")
    p = run.p()
    x_hat = wide(run.session.reverse(run.trace, p))
    errors = []
    for _ in range(DIRECTIONS):
        d = run.rng.standard_normal(x.shape)
        rate = (_projected(run, x + 1e-6 * d, p) - _projected(run, x - 1e-6 * d, p)) / 2e-6
        errors.append(abs(rate - (x_hat * d).sum()) / max(np.linalg.norm(x_hat), 1e-30))
    worst = float(max(errors))
    return Check(what, worst <= WHOLE, worst, f"{DIRECTIONS} random directions")


def _projected(run: Run, x: Array, p: Array) -> float:
    y = reference.forward(run.model, run.feeds | {run.pair.input: x})[run.pair.at]
    return float((y * p).sum())


def linear(run: Run) -> Check:
    """Linear in p, or positively homogeneous where what comes back is rectified."""
    p, q = run.p(), run.p()
    first, second = (run.session.reverse(run.trace, each) for each in (p, q))
    if run.pair.variant.startswith(("deconvnet", "desalinet")):
        what, error = (
            "positively homogeneous",
            _relative(run.session.reverse(run.trace, 3 * p), 3 * first),
        )
    else:
        both = run.session.reverse(run.trace, 2 * p - 3 * q)
        what, error = "linear", _relative(both, 2 * first - 3 * second)
    return Check(f"{what} in p", bool(error <= _rounding(run)), error, _alive(first))


def signs(run: Run) -> Check:
    """Eq. (10), what is rectified and what is masked, at every ReLU by itrun."""
    what, variant = "signs at each ReLU, Eq. (10)", run.pair.variant.removesuffix("-centre")
    if variant == "identity":
        return Check(what, None, None, "identity passes ReLU by")
    relus = [node for node in run.model.graph.node if node.op_type == "Relu" and _alone(run, node)]
    if not relus:
        return Check(what, None, None, "no ReLU whose x_hat can be told from others'")
    wrong = 0
    for node in relus:
        y, x_hat = run.values[node.output[0]], run.apart[1][run.pair.signals[node.input[0]]]
        wrong += int((np.sign(y) * np.sign(x_hat) < 0).sum()) if variant != "salinet" else 0
        wrong += int((x_hat[y == 0] != 0).sum()) if variant != "deconvnet" else 0
    return Check(what, not wrong, None, f"{len(relus)} ReLUs, {wrong} units with the wrong sign")


def _alone(run: Run, node: onnx.NodeProto) -> bool:
    """Whether the node alone gives its input's x_hat."""
    signals = run.pair.signals
    readers = [n for n in run.model.graph.node if node.input[0] in n.input and n.output[0] in signals]
    x_hat = signals.get(node.input[0], "p")
    return readers == [node] and run.heads.get(x_hat) == node.input[0] and x_hat != "p"


def outputs(run: Run, source: Source | None) -> Check:
    """The forward graph's outputs against the model's, which `network.read` gave."""
    what = "outputs of the model"
    if source is None:
        return Check(what, None, None, "no model was given")
    if source.sha256 != run.pair.metadata["source_sha256"]:
        return Check(what, False, None, "it was compiled from another model")
    names = [value.name for value in source.light.model.graph.output]
    if missing := [name for name in names if name not in run.trace.outputs]:
        return Check(what, False, None, f"the forward graph lacks '{missing[0]}'")
    expected = run.outputs(source.light, names, run.feeds)
    found = run.values if run.half else run.trace.outputs
    actual = {name: found[name].reshape(expected[name].shape) for name in names}
    error = max(_relative(actual[name], expected[name]) for name in names)
    return Check(what, bool(error <= _rounding(run)), error, ", ".join(f"'{name}'" for name in names))


def batch(run: Run) -> Check:
    """Two images at once against one by one, bottleneck and all."""
    what = "two images as one batch"
    if isinstance(run.session.x_shape[0], int):
        return Check(what, None, None, f"the batch is fixed at {run.session.x_shape[0]}")
    other = {name: x[..., ::-1] if x.ndim > 2 else x for name, x in run.feeds.items()}
    both = {name: np.concatenate([x, other[name]]) if x.ndim else x for name, x in run.feeds.items()}
    try:
        trace = run.forward(both)
    except RevgraphError as refused:
        return Check(what, *_refused(run, both, refused))
    p, images = run.p(2), (run.feeds, other)
    one_by_one = [run.session.reverse(run.forward(f), p[i : i + 1]) for i, f in enumerate(images)]
    x_hat = run.session.reverse(trace, p)
    error = _relative(x_hat, np.concatenate(one_by_one), np.linalg.norm)
    return Check(what, bool(error <= WHOLE), error, _alive(x_hat))


def _refused(run: Run, feeds: Arrays, error: RevgraphError) -> tuple[bool | None, None, str]:
    """Whether it is the network itself that does not run, or what the compilation added to it."""
    try:
        run.outputs(run.pair.light_forward, list(run.trace.outputs), feeds)
    except RevgraphError:
        return None, None, "the network itself runs for one image only"
    return False, None, error.why


def projections(run: Run) -> Check:
    """P rows on one image against P runs."""
    what = "projections of one image at once"
    if len(run.trace.y) != 1:
        return Check(what, None, None, f"the batch is fixed at {len(run.trace.y)}")
    p = run.p(3)
    runs = np.concatenate([run.session.reverse(run.trace, row[None]) for row in p])
    error = _relative(run.session.reverse(run.trace, p), runs)
    return Check(what, bool(error <= _rounding(run)), error, _alive(runs))


def rows(run: Run) -> Check:
    """One neuron in rows of unlike size, in float16 node by node: each row has its own scale."""
    what, y = "rows of other sizes", run.trace.y
    if len(y) != 1:
        return Check(what, None, None, f"the batch is fixed at {len(y)}")
    neuron = np.zeros_like(y)
    neuron.flat[int(np.argmax(np.abs(y)))] = 1
    sizes = np.array([1, 2.0**-12, 2.0**12, 0], y.dtype)
    given = {"p": neuron * sizes.reshape(-1, *[1] * (y.ndim - 1))}
    given |= {name: run.values[name] for name in run.pair.taps}
    x_hats = run_each_node(run.pair.reversed, given, run.device)["x_hat"]
    expected = reference.reverse(run.model, run.tensors, p=neuron, **run.axes)[run.pair.input][0]
    errors = [_relative(row, size * expected) for row, size in zip(x_hats, wide(sizes), strict=True)]
    return Check(what, bool(max(errors) <= _rounding(run)), max(errors), _alive(x_hats))


def precision(run: Run, source: Source | None) -> Check:
    """What float16 costs: x_hat against that of the same network in float32."""
    what, metadata = "float16 against float32", run.pair.metadata
    if source is None:
        return Check(what, None, None, "no model was given")
    options = {name: metadata[name] for name in ("variant", "at", "input", "lrn")}
    sliding = metadata["fully_convolutional"] == "true"
    whole = compiler.compile(source.light.whole(), fully_convolutional=sliding, **options)
    session = Session(whole, threads=run.threads)
    x = run.feeds[run.pair.input]
    trace = session.forward(x, **{name: v for name, v in run.feeds.items() if name != run.pair.input})
    p, x_hat = run.apart[0]["p"], run.apart[1]["x_hat"]
    error = _relative(x_hat, session.reverse(trace, p), np.linalg.norm)
    inner = (name for node in run.model.graph.node for name in node.output)
    lost = (name for name in inner if not np.isfinite(run.values[name]).all())
    detail = f"float16 overflows at '{name}'" if (name := next(lost, "")) else _alive(x_hat)
    return Check(what, bool(error <= PRECISION), error, detail)


def _rounding(run: Run) -> float:
    return HALF if run.half else SINGLE


def _relative(
    actual: Array, expected: Array, size: Callable[[Array], Any] = lambda a: np.abs(a).max(initial=0)
) -> float:
    """The size of the error over that of what was expected; infinite where shapes differ."""
    if actual.shape != expected.shape:
        return float("inf")
    actual, expected = wide(actual), wide(expected)
    with np.errstate(invalid="ignore"):  # of infinities; NaN passes nothing
        error, scale = float(size((actual - expected).ravel())), float(size(expected.ravel()))
    return error / scale if scale else float("inf") if error else 0.0


def _alive(x_hat: Array) -> str:
    return "" if x_hat.any() else "all zero on both sides"
