"""Running a compilation on onnxruntime; the bottleneck stays where the forward graph left it."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from revgraph import finite
from revgraph.capture import Captured, Graph, Results, capturable, copied, exclusive
from revgraph.compiler import compile
from revgraph.declared import Shape, shape_of
from revgraph.errors import RevgraphError
from revgraph.finite import NotFiniteError
from revgraph.pair import Compiled
from revgraph.runtime import Device, check_cuda, exposed, on_host, open_light, ort_value, ort_values
from revgraph.weights import LightModel


@dataclass(frozen=True, slots=True)
class Trace:
    """What one forward pass leaves behind.

    Attributes:
        y: The chosen layer's output, (N, ...).
        outputs: The model's own outputs by name, y among them.
        taps: The bottleneck r by name, (N, ...), as onnxruntime's values, which on a GPU are the trace's only
            as long as it lives.
        lease: Of the memory that they lie in, where a captured graph writes.
    """

    y: np.ndarray
    outputs: Mapping[str, np.ndarray]
    taps: Mapping[str, Any]
    lease: Results | None = field(default=None, repr=False)


class Session:
    """A compilation, ready to run.

    Args:
        pair: The compilation; or a model, as `compile` takes it, to be compiled for the device.
        threads: onnxruntime's threads within an operator; 0 leaves the choice to it.
        device: Where to run: "cpu", "cuda", or of several GPUs "cuda:1".
        cuda_graph: Whether a GPU captures what it does for a shape that it meets again, and then replays it.
            Each shape keeps its memory. Calls from several threads wait for each other, and onnxruntime
            captures for each thread anew.
        check: Whether NaN and infinities are refused, in x, p, y and x_hat; else they are the caller's to
            look for.
        configure: Called with each graph's `onnxruntime.SessionOptions` before it is opened, to set what else
            shall differ: memory arenas, graph optimisation, profiling.
        **options: For a model what `compile` is told, the variant at least; the target is the device's.

    A session may be called from several threads at once. What the forward graph leaves for the reversed one
    is handed over where it lies, without a copy, on a GPU too. The reversed graph is opened by the first call
    of `reverse`, for as many images and rows as that has: onnxruntime fuses more where it knows them. Should
    another call differ, the graph is opened once more, for any number.

    Raises:
        RevgraphError: The model cannot be compiled; or onnxruntime is not installed, cannot run the forward
            graph, or has no such device: it never runs elsewhere instead.
    """

    def __init__(
        self,
        pair: Compiled | str | Path | onnx.ModelProto,
        *,
        threads: int = 0,
        device: str = "cpu",
        cuda_graph: bool = True,
        check: bool = True,
        configure: Callable[[Any], object] | None = None,
        **options: Any,
    ) -> None:
        self._device = Device.of(device)
        if self._device.kind == "cuda":
            check_cuda()
        if not isinstance(pair, Compiled):
            pair = compile(pair, **{"target": self._device.kind} | options)
        elif options:
            raise TypeError(f"a compilation takes no {', '.join(options)}: these are for compile")
        self.pair = pair
        self._free = _free_dimensions(pair)
        self._threads, self._configure, self._check = threads, configure, check
        self._captures = cuda_graph and capturable(pair, self._device)
        self._alone = exclusive(self._device)
        # Kept here, for onnxruntime reads these arrays where they are and does not keep them itself.
        self._weights = ort_values(pair.light_forward.weights | pair.light_reversed.weights)
        self._forward = self._open(pair.light_forward, capture=self._captures)
        self._reversed = dict[tuple[int, int] | None, Graph]()
        self._opening = threading.Lock()

    @property
    def x_shape(self) -> Shape:
        """The shape of x as the model declares it; names or None where it is free."""
        return self.pair.x_shape

    @property
    def x_dtype(self) -> np.dtype[Any]:
        """The element type of x."""
        return self.pair.x_dtype

    def forward(self, x: Any, /, **others: Any) -> Trace:
        """Run the forward graph.

        Args:
            x: The input that x_hat belongs to, (N, ...): an array, or another library's tensor, on the device
                or on the CPU, that speaks DLPack and is used where it lies.
            **others: The model's other inputs, by name.

        Returns:
            y and the bottleneck.

        Raises:
            NotFiniteError: x or y holds NaN or infinities, or another input NaN. Of y it names the first
                layer on the way that does.
            RevgraphError: An input is missing or does not fit.
        """
        feeds = {self.pair.input: x, **others}
        names = [output.name for output in self._forward.session.get_outputs()]
        checked = self._checked(feeds)
        with self._alone:
            results = self._forward.run(names, checked, {})
            outputs = {name: results.array(name) for name in names if name not in self.pair.taps}
        taps = {name: results.values[name] for name in self.pair.taps}
        y = outputs[self.pair.at]
        if self._check and not finite.is_finite(y):
            raise self._not_finite("y", y, self._inner(checked)[0].items())
        return Trace(y, outputs, taps, results if results.place else None)

    def reverse(self, trace: Trace, p: Any) -> np.ndarray:
        """Run the reversed graph.

        Args:
            trace: Of N images.
            p: (P, *y.shape[1:]), in the dtype of y. P = N, or N = 1 and P projections of that one image. An
                array or another library's tensor, as for `forward`.

        Returns:
            x_hat, (P, *x.shape[1:]).

        Raises:
            NotFiniteError: p or x_hat holds NaN or infinities. Of x_hat it names the first layer on the way
                back whose x_hat does.
            RevgraphError: p does not fit, or onnxruntime cannot run the reversed graph.
        """
        with self._alone:
            x_hat = self._reverse(trace, p).array("x_hat")
        if self._check and not finite.is_finite(x_hat):
            back = self._signals(trace, p)
            signals = ((name, back[signal]) for name, signal in self.pair.signals.items() if signal in back)
            raise self._not_finite("x_hat", x_hat, signals)
        return x_hat

    def reverse_on_device(self, trace: Trace, p: Any) -> Any:
        """As `reverse`, but x_hat stays where it was computed, and is not looked at.

        Returns:
            An `onnxruntime.OrtValue`, which other libraries take over by DLPack: `torch.from_dlpack(x_hat)`.
        """
        with self._alone:
            results = self._reverse(trace, p)
            x_hat = results.values["x_hat"]
            return x_hat if results.place is None else copied(x_hat, self._device)

    def _reverse(self, trace: Trace, p: Any) -> Results:
        feeds = self._reversed_feeds(trace, p)
        graph = self._reversed_for(trace.y.shape[0], feeds["p"].shape()[0])
        return graph.run(["x_hat"], feeds, trace.taps, lasting=trace.lease is not None)

    def _reversed_for(self, images: int, rows: int) -> Graph:
        """The reversed graph, open for these numbers, or for any."""
        with self._opening:
            key = (images, rows) if (images, rows) in self._reversed or not self._reversed else None
            if key not in self._reversed:
                self._reversed[key] = self._open(self.pair.light_reversed, key, self._captures)
            return self._reversed[key]

    def vanishes_after(self, trace: Trace, p: np.ndarray) -> str | None:
        """The last layer whose x_hat is not all zero, on the way to an x_hat that is; else None.

        It runs the reversed graph once more, in a form that keeps everything and stays open from then on.
        """
        if self.reverse(trace, p).any():
            return None
        alive = {name for name, x_hat in self._signals(trace, p).items() if x_hat.any()}
        reached = [tensor for tensor, x_hat in self.pair.signals.items() if x_hat in alive]
        if not reached:
            return self.pair.at
        tensor = reached[-1]
        readers = [node for node in self.pair.light_forward.model.graph.node if tensor in node.input]
        return next((node.name for node in readers if node.output[0] in self.pair.signals), tensor)

    def _not_finite(
        self, what: str, values: np.ndarray, layers: Iterable[tuple[str, np.ndarray]]
    ) -> NotFiniteError:
        """The error for y or x_hat, from the layers' tensors in the order of computation."""
        lost = next((name for name, each in layers if not finite.is_finite(each)), None)
        where = "" if lost is None else f"; the first layer that does is '{lost}'"
        half = self.pair.metadata["precision"] == "fp16"
        remedy = "compile with --precision fp32" if half else "check the model's weights, and how x is scaled"
        why = f"{what} holds {finite.said(values)}{where}"
        return NotFiniteError(f"cannot reverse '{self.pair.name}'", why, remedy)

    def layers(
        self, x: np.ndarray, p: np.ndarray, **others: np.ndarray
    ) -> tuple[list[tuple[str, np.ndarray]], list[tuple[str, np.ndarray]]]:
        """Every layer's output on the way from x to y, and every x_hat on the way back.

        Args:
            x: As for `forward`.
            p: As for `reverse`.
            **others: As for `forward`.

        Returns:
            Forward tensors by name, and by the same names their x_hat, each in the order of computation.
        """
        forward, taps = self._inner(self._checked({self.pair.input: x, **others}))
        y = forward[self.pair.at]
        back = {"p": p} | self._signals(Trace(y, {self.pair.at: y}, taps), p)
        return list(forward.items()), [(name, back[x_hat]) for name, x_hat in self.pair.signals.items()]

    def _inner(self, feeds: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Every layer's output on the way from x to y, and the taps, from inputs that fit."""
        graph, names = self._exposed_forward
        with self._alone:
            values = dict(graph.run(names, feeds, {}).values)
            taps = {name: values.pop(name) for name in self.pair.taps}
            return {name: value.numpy() for name, value in values.items()}, taps

    def _signals(self, trace: Trace, p: np.ndarray) -> dict[str, np.ndarray]:
        """Every x_hat on the way back, by the reversed tensor's name."""
        graph, names = self._exposed_reversed
        with self._alone:
            found = graph.run(names, self._reversed_feeds(trace, p), trace.taps)
            return self.pair.rescaled({name: value.numpy() for name, value in found.values.items()})

    @cached_property
    def _exposed_forward(self) -> tuple[Graph, list[str]]:
        """The forward graph with every layer as an output, and their names: from x to y, then the taps."""
        light = self.pair.light_forward
        names = [name for name in reversed(self.pair.signals) if name != self.pair.input]
        outputs = {value.name for value in light.model.graph.output}
        graph = self._open(exposed(light, [name for name in names if name not in outputs]))
        return graph, [*names, *self.pair.taps]

    @cached_property
    def _exposed_reversed(self) -> tuple[Graph, list[str]]:
        """The reversed graph with every x_hat as an output, and their names, from y to x; then scales."""
        x_hats = (x_hat for x_hat in self.pair.signals.values() if x_hat != "p")
        names = list(dict.fromkeys([*x_hats, *self.pair.scales.values()]))
        inner = [name for name in names if name != "x_hat"]
        return self._open(exposed(self.pair.light_reversed, inner)), names

    def _open(self, light: LightModel, sizes: tuple[int, int] | None = None, capture: bool = False) -> Graph:
        """A graph; the reversed one for a number of images and rows of p, if these are told."""

        def configure(options: Any) -> None:
            for name, n in zip(self._free, sizes or (), strict=False):
                if name:
                    options.add_free_dimension_override_by_name(name, n)
            if self._configure is not None:
                self._configure(options)

        given = (light, self._weights, self._threads, configure, self._device)
        with self._alone:
            if capture:
                with contextlib.suppress(RevgraphError):  # a node of the user's own that CUDA does not run
                    return Captured(open_light(*given, True), self._device)
            return Graph(open_light(*given), self._device)

    def _reversed_feeds(self, trace: Trace, p: Any) -> dict[str, Any]:
        (kind, shape), n = _about(p), trace.y.shape[0]
        if kind != str(trace.y.dtype) or shape[1:] != trace.y.shape[1:] or not shape:
            why = f"y is {trace.y.dtype} {trace.y.shape}"
            raise RevgraphError(
                f"p does not fit: it is {kind} {shape}", why, "only the first dimension is free"
            )
        rows = shape[0]
        if rows == 0 or (rows != n and n != 1):
            why = f"the trace is of {n} images"
            raise RevgraphError(
                f"p does not fit: it has {rows} rows", why, f"give {n} rows, or trace one image"
            )
        value = ort_value(p)
        if self._check and (held := on_host(value)) is not None:
            finite.check("cannot project on p", "it", held)
        return {"p": value}

    def _checked(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs as onnxruntime's values, which fit."""
        inputs = {value.name: value for value in self._forward.session.get_inputs()}
        if feeds.keys() != inputs.keys():
            given, wanted = (", ".join(f"'{name}'" for name in names) for names in (feeds, inputs))
            raise RevgraphError("the inputs do not fit", f"given were {given}", f"the model has {wanted}")
        return {name: self._fitting(inputs[name], value) for name, value in feeds.items()}

    def _check_numbers(self, name: str, value: Any) -> None:
        """Infinities mask what they are added to, but are nothing to see: x has none."""
        held = on_host(value) if self._check else None
        if held is not None and (name == self.pair.input or np.isnan(held).any()):
            finite.check(f"cannot run '{self.pair.name}'", f"input '{name}'", held)

    def _fitting(self, declared: Any, given: Any) -> Any:
        kind, shape = _about(given)
        fits = len(declared.shape) == len(shape) and all(
            not isinstance(n, int) or n == m for n, m in zip(declared.shape, shape, strict=True)
        )
        if not fits or _ONNX_TYPES.get(kind) != declared.type:
            raise RevgraphError(
                f"input '{declared.name}' does not fit: it is {kind} {shape}",
                f"the model wants {declared.type} {declared.shape}",
                "convert it, or compile a model that takes it",
            )
        value = ort_value(given)
        self._check_numbers(declared.name, value)
        return value


def _free_dimensions(pair: Compiled) -> tuple[str, str]:
    """What the reversed graph calls the number of images, and of rows; empty where that shall stay free."""
    shapes = {value.name: shape_of(value) for value in pair.light_reversed.model.graph.input}
    images, rows = (n if isinstance(n, str) else "" for n in (pair.x_shape[0], shapes["p"][0]))
    sizes = {n for shape in shapes.values() for n in shape[1:]}
    return "" if images in sizes else images, rows


def _about(given: Any) -> tuple[str, tuple[int, ...]]:
    """NumPy's name of the element type, and the shape."""
    if isinstance(given, np.ndarray):
        return str(given.dtype), given.shape
    value = ort_value(given)
    kind = value.data_type()
    return next((name for name, known in _ONNX_TYPES.items() if known == kind), kind), tuple(value.shape())


_ONNX_TYPES = {"float32": "tensor(float)", "float64": "tensor(double)"} | {
    name: f"tensor({name})"
    for name in ("float16", "uint8", "int8", "uint16", "int16", "int32", "int64", "bool")
}
