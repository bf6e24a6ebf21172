"""The network that an experiment looks at, and its layers: a middle one, the last pool, the logits."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from revgraph import compiler, flow, network, neuron
from revgraph.explain import Explainer, Explanation
from revgraph.graph import gs
from revgraph.neuron import Neuron
from revgraph.recipe import Recipe
from revgraph.runtime import Device
from revgraph.session import Session
from revgraph.window import Window

Pictures = Sequence[tuple[str, Image.Image]]
"""Names and pictures."""

STRONGEST = (neuron.parse("max"),)

LINEAR = ("Add", "Conv", "BatchNormalization", "LRN", "Dropout", "Identity", "Slice", "Transpose", "Reshape")

SESSIONS = 4
"""Kept open at once: each holds the network's weights."""


@dataclass(frozen=True, slots=True)
class Layers:
    """Where the paper looks, as tensor names.

    Attributes:
        middle: Maps some way before the last pool, as relu4 of AlexNet and pool4 of VGG-16.
        pool: The last maps: what the last max pooling gives, as pool5; where strides shrink the maps further
            after that, as in a ResNet, what the final average is taken of.
        logits: One score per class, as fc8.
    """

    middle: str
    pool: str
    logits: str

    @property
    def all(self) -> tuple[str, str, str]:
        return self.middle, self.pool, self.logits


class Subject:
    """A network, how it is fed, and its explanations.

    Args:
        model: An ONNX file, or the model itself.
        name: What captions call it.
        recipe: For its pictures.
        threads: onnxruntime's.
        device: As for Session.

    Raises:
        RevgraphError: The model cannot be read.
    """

    def __init__(
        self,
        model: str | Path | onnx.ModelProto,
        name: str,
        recipe: Recipe,
        threads: int = 0,
        device: str = "cpu",
    ) -> None:
        self.model, self.name, self.recipe = model, name, recipe
        self._threads, self._device = threads, device
        source = network.read(model)
        self.digest = source.sha256
        self.graph, self.x, y = network.locate(source, None, None)
        self.path = flow.path(self.graph, self.x, y)
        pool = self._pool()
        self.layers = Layers(self._middle(pool), pool, y.name)
        self._explainers, self._opening = lru_cache(SESSIONS)(self._open), threading.Lock()

    def explainer(
        self, variant: str, at: str, lrn: str | None = None, shorter: int | None = None
    ) -> Explainer:
        """What explains pictures by a variant, from a layer; with `shorter` they keep their shape."""
        with self._opening:  # or threads would open the same several times
            return self._explainers(variant, at, lrn, shorter)

    def _open(self, variant: str, at: str, lrn: str | None, shorter: int | None) -> Explainer:
        target = Device.of(self._device).kind
        if shorter and target != "cpu":  # a GPU's own encodings of switches want sizes that are known
            target = "portable"
        compiled = compiler.compile(
            self.model,
            variant=variant,
            at=at,
            lrn=lrn,
            target=target,
            fully_convolutional=shorter is not None,
        )
        return Explainer(Session(compiled, threads=self._threads, device=self._device), self.recipe, shorter)

    def of(self, model: onnx.ModelProto) -> "Subject":
        """The same of a network that differs in its weights alone."""
        return Subject(model, self.name, self.recipe, self._threads, self._device)

    def explain(
        self, image: Image.Image, variant: str, at: str, neurons: Sequence[Neuron], lrn: str | None = None
    ) -> list[Explanation]:
        """One explanation for each neuron, by the variant from the layer; the same again each time."""
        explainer = self.explainer(variant, at, lrn)
        return list(explainer.explain(image, neurons, np.random.default_rng(0)))

    @property
    def normalises(self) -> bool:
        """Whether it has local response normalisation."""
        return any(node.op == "LRN" for node in self.path)

    def _middle(self, pool: str) -> str:
        """Of the maps that all of y comes through, one about three quarters of the way to the pool."""
        names = [str(node.outputs[0].name) for node in self.path]
        wanted = 3 * names.index(pool) // 4
        maps = [
            i for i in self._through() if self.path[i].op not in LINEAR and _is_map(self.path[i].outputs[0])
        ]
        return names[min(maps, key=lambda i: abs(i - wanted), default=wanted)]

    def _through(self) -> Iterator[int]:
        """Indices in the path of the nodes that every way from x to y leads through."""
        waiting = {self.x.name: len(self._readers(self.x))}
        for i, node in enumerate(self.path):
            for name in {tensor.name for tensor in node.inputs} & waiting.keys():
                waiting[name] -= 1
                if not waiting[name]:
                    del waiting[name]
            waiting[node.outputs[0].name] = len(self._readers(node.outputs[0]))
            if len(waiting) == 1:
                yield i

    def _readers(self, tensor: gs.Variable) -> list[gs.Node]:
        return [node for node in self.path if any(read is tensor for read in node.inputs)]

    def _pool(self) -> str:
        shrinking = [node for node in self.path if _strides(node)]
        if shrinking and shrinking[-1].op == "MaxPool":
            return str(shrinking[-1].outputs[0].name)
        maps = [node for node in self.path if _is_map(node.outputs[0])]
        return str((maps or self.path)[-1].outputs[0].name)


def _is_map(tensor: gs.Variable) -> bool:
    """Whether the tensor has more than one position."""
    shape = tensor.shape
    return shape is not None and len(shape) == 4 and tuple(shape[2:]) != (1, 1)


def _strides(node: gs.Node) -> bool:
    """Whether it makes a smaller map, out of one, and is not the average over all of it."""
    if node.op not in ("MaxPool", "AveragePool", "Conv") or not _is_map(node.outputs[0]):
        return False
    return any(s > 1 for s in Window.of(node.attrs, node.attrs.get("kernel_shape") or (1, 1)).strides)
