"""Running a compilation on onnxruntime; the bottleneck stays where the forward graph left it."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from revgraph.errors import RevgraphError, missing_extra
from revgraph.pair import Compiled
from revgraph.weights import LightModel, Weights


@dataclass(frozen=True, slots=True)
class Trace:
    """What one forward pass leaves behind.

    Attributes:
        y: The chosen layer's output, (N, ...).
        outputs: The model's own outputs by name, y among them.
        taps: The bottleneck r by name, (N, ...), as onnxruntime's values.
    """

    y: np.ndarray
    outputs: Mapping[str, np.ndarray]
    taps: Mapping[str, Any]


class Session:
    """A compilation, ready to run.

    Args:
        pair: The compilation.
        threads: onnxruntime's threads within an operator; 0 leaves the choice to it.
        configure: Called with each graph's `onnxruntime.SessionOptions` before it is opened, to set what else
            shall differ: memory arenas, graph optimisation, profiling.

    A session may be called from several threads at once. What the forward graph leaves for the reversed one
    is handed over where it lies, without a copy. The reversed graph is opened by the first call of `reverse`,
    for as many images and rows as that has: onnxruntime fuses more where it knows them. Should another call
    differ, the graph is opened once more, for any number.

    Raises:
        RevgraphError: onnxruntime is not installed, or cannot run the forward graph.
    """

    def __init__(
        self, pair: Compiled, *, threads: int = 0, configure: Callable[[Any], object] | None = None
    ) -> None:
        self.pair = pair
        self._threads, self._configure = threads, configure
        # Kept here, for onnxruntime reads these arrays where they are and does not keep them itself.
        self._weights = ort_values(pair.light_forward.weights | pair.light_reversed.weights)
        self._forward = self._open(pair.light_forward)
        self._reversed = dict[tuple[int, int] | None, Any]()
        self._opening = threading.Lock()

    @property
    def x_shape(self) -> tuple[int | str | None, ...]:
        """The shape of x as the model declares it; names or None where it is free."""
        return tuple(next(i.shape for i in self._forward.get_inputs() if i.name == self.pair.input))

    @property
    def x_dtype(self) -> np.dtype[Any]:
        """The element type of x."""
        kind = next(i.type for i in self._forward.get_inputs() if i.name == self.pair.input)
        return np.dtype(next(name for name, known in _ONNX_TYPES.items() if known == kind))

    def forward(self, x: np.ndarray, /, **others: np.ndarray) -> Trace:
        """Run the forward graph.

        Args:
            x: The input that x_hat belongs to, (N, ...).
            **others: The model's other inputs, by name.

        Returns:
            y and the bottleneck.

        Raises:
            RevgraphError: An input is missing or does not fit.
        """
        feeds = {self.pair.input: x, **others}
        self._check_feeds(feeds)
        names = [output.name for output in self._forward.get_outputs()]
        values = dict(zip(names, run(self._forward, names, feeds), strict=True))
        taps = {name: values.pop(name) for name in self.pair.taps}
        outputs = {name: value.numpy() for name, value in values.items()}
        return Trace(outputs[self.pair.at], outputs, taps)

    def reverse(self, trace: Trace, p: np.ndarray) -> np.ndarray:
        """Run the reversed graph.

        Args:
            trace: Of N images.
            p: (P, *y.shape[1:]), in the dtype of y. P = N, or N = 1 and P projections of that one image.

        Returns:
            x_hat, (P, *x.shape[1:]).

        Raises:
            RevgraphError: p does not fit, or onnxruntime cannot run the reversed graph.
        """
        feeds = self._reversed_feeds(trace, p)
        graph = self._reversed_for(trace.y.shape[0], p.shape[0])
        (x_hat,) = run(graph, ["x_hat"], feeds)
        return np.asarray(x_hat.numpy())

    def _reversed_for(self, images: int, rows: int) -> Any:
        """The reversed graph, open for these numbers, or for any."""
        with self._opening:
            key = (images, rows) if (images, rows) in self._reversed or not self._reversed else None
            if key not in self._reversed:
                self._reversed[key] = self._open(self.pair.light_reversed, key)
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
        feeds = {self.pair.input: x, **others}
        self._check_feeds(feeds)
        graph, names = self._exposed_forward
        values = dict(zip(names, run(graph, names, feeds), strict=True))
        taps = {name: values.pop(name) for name in self.pair.taps}
        forward = {name: value.numpy() for name, value in values.items()}
        y = forward[self.pair.at]
        back = {"p": p} | self._signals(Trace(y, {self.pair.at: y}, taps), p)
        return list(forward.items()), [(name, back[x_hat]) for name, x_hat in self.pair.signals.items()]

    def _signals(self, trace: Trace, p: np.ndarray) -> dict[str, np.ndarray]:
        """Every x_hat on the way back, by the reversed tensor's name."""
        graph, names = self._exposed_reversed
        values = run(graph, names, self._reversed_feeds(trace, p))
        return {name: value.numpy() for name, value in zip(names, values, strict=True)}

    @cached_property
    def _exposed_forward(self) -> tuple[Any, list[str]]:
        """The forward graph with every layer as an output, and their names: from x to y, then the taps."""
        light = self.pair.light_forward
        names = [name for name in reversed(self.pair.signals) if name != self.pair.input]
        outputs = {value.name for value in light.model.graph.output}
        graph = self._open(exposed(light, [name for name in names if name not in outputs]))
        return graph, [*names, *self.pair.taps]

    @cached_property
    def _exposed_reversed(self) -> tuple[Any, list[str]]:
        """The reversed graph with every x_hat as an output, and their names, from y to x."""
        names = list(dict.fromkeys(x_hat for x_hat in self.pair.signals.values() if x_hat != "p"))
        inner = [name for name in names if name != "x_hat"]
        return self._open(exposed(self.pair.light_reversed, inner)), names

    def _open(self, light: LightModel, sizes: tuple[int, int] | None = None) -> Any:
        """A graph; the reversed one for a number of images and rows of p, if these are told."""

        def configure(options: Any) -> None:
            if sizes is not None:
                for value in light.model.graph.input:
                    dim = value.type.tensor_type.shape.dim[0]
                    if dim.dim_param:
                        options.add_free_dimension_override_by_name(dim.dim_param, sizes[value.name == "p"])
            if self._configure is not None:
                self._configure(options)

        return open_light(light, self._weights, self._threads, configure)

    def _reversed_feeds(self, trace: Trace, p: np.ndarray) -> dict[str, Any]:
        n, rows = trace.y.shape[0], p.shape[0] if p.ndim else 0
        if p.dtype != trace.y.dtype or p.shape[1:] != trace.y.shape[1:] or p.ndim == 0:
            why = f"y is {trace.y.dtype} {trace.y.shape}"
            raise RevgraphError(
                f"p does not fit: it is {p.dtype} {p.shape}", why, "only the first dimension is free"
            )
        if rows == 0 or (rows != n and n != 1):
            why = f"the trace is of {n} images"
            raise RevgraphError(
                f"p does not fit: it has {rows} rows", why, f"give {n} rows, or trace one image"
            )
        return {"p": p, **trace.taps}

    def _check_feeds(self, feeds: Mapping[str, np.ndarray]) -> None:
        inputs = {value.name: value for value in self._forward.get_inputs()}
        if feeds.keys() != inputs.keys():
            given, wanted = (", ".join(f"'{name}'" for name in names) for names in (feeds, inputs))
            raise RevgraphError("the inputs do not fit", f"given were {given}", f"the model has {wanted}")
        for name, values in feeds.items():
            declared = inputs[name].shape
            fits = len(declared) == values.ndim and all(
                not isinstance(n, int) or n == m for n, m in zip(declared, values.shape, strict=True)
            )
            if not fits or _ONNX_TYPES.get(str(values.dtype)) != inputs[name].type:
                what = f"input '{name}' does not fit: it is {values.dtype} {values.shape}"
                raise RevgraphError(
                    what,
                    f"the model wants {inputs[name].type} {declared}",
                    "convert it, or compile a model that takes it",
                )


_ONNX_TYPES = {"float32": "tensor(float)", "float64": "tensor(double)"} | {
    name: f"tensor({name})"
    for name in ("float16", "uint8", "int8", "uint16", "int16", "int32", "int64", "bool")
}


# ---------------------------------------------------------------- onnxruntime


def ort_values(weights: Weights) -> dict[str, Any]:
    """The arrays as onnxruntime's values, over the same memory."""
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("cannot run a network", "onnxruntime", "cpu") from error
    return {name: onnxruntime.OrtValue.ortvalue_from_numpy(values) for name, values in weights.items()}


def open_light(
    light: LightModel,
    values: Mapping[str, Any],
    threads: int,
    configure: Callable[[Any], object] | None = None,
) -> Any:
    """An InferenceSession on weights where they are, which are not copied."""
    import onnxruntime

    names = list(light.weights)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what it logs as errors it also raises
    options.add_external_initializers(names, [values[name] for name in names])
    for name in names:  # the first alone would be copied
        options.add_initializer(name, values[name])
    if configure is not None:
        configure(options)
    try:
        return onnxruntime.InferenceSession(
            light.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise _refused(error) from error


def exposed(light: LightModel, names: Iterable[str]) -> LightModel:
    """The same with inner tensors as outputs too."""
    model = onnx.ModelProto()
    model.CopyFrom(light.model)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return LightModel(model, light.weights)


def run(session: Any, outputs: list[str], feeds: Mapping[str, Any]) -> list[Any]:
    import onnxruntime

    values = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
        if isinstance(value, np.ndarray)
        else value
        for name, value in feeds.items()
    }
    try:
        return list(session.run_with_ort_values(outputs, values))
    except Exception as error:
        raise _refused(error) from error


def _refused(error: Exception) -> Exception:
    """onnxruntime's own exceptions are about the model or its inputs; any other is a bug."""
    if type(error).__module__.startswith("onnxruntime"):
        remedy = "check that the model itself runs there"
        return RevgraphError("onnxruntime cannot run this network", str(error), remedy)
    return error
