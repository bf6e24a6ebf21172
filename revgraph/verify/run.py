"""One run of a compilation on random inputs, and what onnxruntime and the equations make of it."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from revgraph.declared import dtype_of, shape_of
from revgraph.errors import RevgraphError
from revgraph.pair import Compiled
from revgraph.runtime import Device, exposed, open_light, ort_values, run, run_each_node
from revgraph.session import Session, Trace
from revgraph.weights import LightModel

Array = np.ndarray
Arrays = dict[str, Array]

SIZES = (64, 128, 224, 299, 32, 28)
"""Heights and widths tried, in this order, where the network leaves them free."""


class Run:
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
                trace = self.forward(feeds)
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

    def forward(self, feeds: Arrays) -> Trace:
        """The trace of these inputs."""
        others = {name: value for name, value in feeds.items() if name != self.pair.input}
        return self.session.forward(feeds[self.pair.input], **others)

    def p(self, rows: int | None = None) -> Array:
        """Random projections: as many as there are images, unless told."""
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
        outputs = self.outputs(
            exposed(light, [name for name in inner if name not in given]), inner, self.feeds
        )
        return self.feeds | outputs

    @cached_property
    def tensors(self) -> Arrays:
        """The same in float64, and the weights: every mask and switch is then read off the same numbers."""
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}
        return {name: wide(value) for name, value in (weights | self.values).items()}

    @cached_property
    def axes(self) -> dict[str, Any]:
        """What the equations need to know of the variant."""
        pair = self.pair
        return {"variant": pair.variant, "at": pair.at, "to": pair.input, "lrn": pair.metadata["lrn"]}

    def outputs(self, light: LightModel, names: list[str], feeds: Mapping[str, Any]) -> Arrays:
        """Those of a graph, opened for once."""
        session = open_light(light, ort_values(light.weights), self.threads, device=self.device)
        return {name: v.numpy() for name, v in zip(names, run(session, names, feeds), strict=True)}

    @property
    def weights(self) -> Arrays:
        """Those of the user's network up to y."""
        read = {name for node in self.model.graph.node for name in node.input}
        held = (tensor for tensor in self.model.graph.initializer if tensor.name in read)
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in held}

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
            given = {"p": self.p()} | {name: self.values[name] for name in self.pair.taps}
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
        return y_hats, self.outputs(exposed(light, inner), [*inner, "x_hat"], feeds | taps)

    def _like(self, tensor: str) -> Array:
        value = self.values[tensor]
        return self.rng.standard_normal(value.shape).astype(value.dtype)


def wide(value: Array) -> Array:
    """A floating-point array in float64, any other as it is."""
    return value.astype(np.float64) if np.issubdtype(value.dtype, np.floating) else value
