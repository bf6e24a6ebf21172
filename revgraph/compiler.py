"""An ONNX model in, the pair of ONNX graphs out.

The steps: canonical (one that the rules fit), half (in float16 if asked for), reverse (taps and the reversed
graph), simplify (what the target asks for), keep_in_range (of float16), lower (plain ONNX), export and check.
"""

import hashlib
import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from revgraph import flow, network, odd_weights, pair, variants
from revgraph.canonical import half, on_model, patterns
from revgraph.errors import RevgraphError
from revgraph.finite import Count
from revgraph.graph import Builder, Tensor, export, gs
from revgraph.lower.target import lower
from revgraph.lower.targets import BOTTLENECKS, TARGETS
from revgraph.network import Source
from revgraph.pair import Compiled
from revgraph.reverse import reverse
from revgraph.scaling import keep_in_range
from revgraph.simplify import simplify
from revgraph.version import __version__
from revgraph.weights import LightModel

PRECISIONS = ("fp32", "fp16")


def compile(
    model: str | Path | onnx.ModelProto,
    *,
    variant: str,
    at: str | None = None,
    input: str | None = None,
    lrn: str | None = None,
    target: str = "portable",
    precision: str = "fp32",
    bottleneck: str = "plain",
    fully_convolutional: bool = False,
) -> Compiled:
    """Turn a CNN into its reversed network.

    Args:
        model: An ONNX file, or the model itself.
        variant: One of the eight of Fig. 3, as `revgraph.VARIANTS` names them.
        at: The layer whose output is y: a tensor's name, else a node's. By default the input of the softmax
            that the first output comes from, else the first output.
        input: The input that x_hat belongs to; by default the only one that y depends on.
        lrn: "identity" or "bp", the reversal of LRN; by default the variant's own.
        target: Where the result shall run.
        precision: "fp32", as the model has it, or "fp16": float16 where that suits, inputs and outputs apart.
        bottleneck: "plain", or "packed": masks and switches in as few bits as they need.
        fully_convolutional: Whether a classifier's fully connected head becomes convolutions, so that
            pictures of any size run (Sect. 3.5).

    Returns:
        The forward graph with its taps, and the reversed graph.

    Raises:
        RevgraphError: The model cannot be read, or a layer of it cannot be reversed, or computes with NaN.
    """
    options = _Options(variant, lrn, target, precision, bottleneck, fully_convolutional)
    options.check()
    source = network.read(model)
    graph, x, y = network.locate(source, at, input, fully_convolutional)
    if odd := odd_weights.count(graph.nodes):
        odd_weights.check_ancestors(graph, y)
    if not any(y is output for output in graph.outputs):
        graph.outputs.append(y)
    fwd = Builder(graph, {*graph.tensors(), "p", "x_hat"})
    if precision == "fp16":
        half.in_half(fwd, y)
        odd = odd_weights.count(graph.nodes)
    outputs, tensors = len(graph.outputs), set(graph.tensors())
    with patterns.grouped(graph, y):
        rev, signals = reverse(fwd, variants.rules(variant, lrn), x, y)
        beyond = [node.name for node in flow.path(graph, x, y) if node.op in variants.BEYOND]
    places, packing = BOTTLENECKS[bottleneck]
    place = places[target]
    simplify(place.passes, fwd, rev)
    scales = keep_in_range(rev)
    lower(packing(place, rev.graph), fwd, rev)
    noted = options.noted(source, x, y, graph.outputs[outputs:], beyond)
    forward, backward = _export(graph, source.light.model), _export(rev.graph, None)
    kept = _kept(signals, tensors & graph.tensors().keys(), backward.model)
    return pair.tie(source.name, forward, backward, noted | _signals(kept, scales) | _odd(odd))


@dataclass(frozen=True, slots=True)
class _Options:
    """How `compile` is told to do it; its arguments of these names."""

    variant: str
    lrn: str | None
    target: str
    precision: str
    bottleneck: str
    fully_convolutional: bool

    def check(self) -> None:
        """Refuse what there is not."""
        _check_choice("variant", self.variant, variants.VARIANTS)
        _check_choice("reversal of LRN", self.lrn or "identity", variants.LRN)
        _check_choice("target", self.target, TARGETS)
        _check_choice("bottleneck", self.bottleneck, BOTTLENECKS)
        _check_precision(self.precision, self.target)

    def noted(
        self, source: Source, x: gs.Variable, y: gs.Variable, taps: Iterable[Tensor], beyond: list[str]
    ) -> dict[str, str]:
        """The metadata of both files that says of what and how they were made, with a digest of it."""
        noted = {
            "version": __version__,
            "variant": self.variant,
            "at": y.name,
            "input": x.name,
            "lrn": self.lrn or variants.lrn_of(self.variant),
            "target": self.target,
            "precision": self.precision,
            "bottleneck": self.bottleneck,
            "taps": json.dumps([tap.name for tap in taps]),
            "source_sha256": source.sha256,
            "fully_convolutional": str(self.fully_convolutional).lower(),
            "beyond_paper": json.dumps(beyond),
        }
        return noted | {"pair": hashlib.sha256(json.dumps(noted, sort_keys=True).encode()).hexdigest()}


def _kept(signals: Mapping[str, str], tensors: Container[str], rev: onnx.ModelProto) -> dict[str, str]:
    """The signals whose two tensors are both in the files.

    Of groups that one node stood for, and of what a target merged, the inner tensors are not there.
    """
    written = {"p", *(name for node in rev.graph.node for name in node.output)}
    return {tensor: x_hat for tensor, x_hat in signals.items() if tensor in tensors and x_hat in written}


def _signals(kept: Mapping[str, str], scales: Mapping[str, str]) -> dict[str, str]:
    """The metadata that says where x_hat of each forward tensor is, and its scale where it has one."""
    noted = {"signals": json.dumps(kept)}
    if scaled := {x_hat: scales[x_hat] for x_hat in kept.values() if x_hat in scales}:
        noted["scales"] = json.dumps(scaled)
    return noted


def _odd(found: Mapping[str, Count]) -> dict[str, str]:
    """The metadata that says which weights are odd; none where none is."""
    return {"odd_weights": json.dumps({n: asdict(count) for n, count in found.items()})} if found else {}


def _check_choice(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise RevgraphError(f"unknown {what}", f"'{name}'", f"known: {', '.join(known)}")


def _check_precision(precision: str, target: str) -> None:
    what = f"cannot compile for {precision}"
    if precision == "bf16":
        why = "onnxruntime's CUDA has no ConvTranspose, MaxPool or Greater of bfloat16"
        raise RevgraphError(what, why, "compile with --precision fp16")
    _check_choice("precision", precision, PRECISIONS)
    if precision == "fp16" and target == "cpu":
        why = "onnxruntime's CPU computes in float32, and would only cast to and fro"
        raise RevgraphError(what, why, "choose another --target, or --precision fp32")


def _export(graph: gs.Graph, source: onnx.ModelProto | None) -> LightModel:
    """The graph as a checked model, with the source's texts, which onnx-graphsurgeon drops."""
    graph.ir_version = graph.ir_version or on_model.IRS[0]
    light = export(graph)
    model = light.model
    model.producer_name, model.producer_version = "revgraph", __version__
    if source is not None:
        _restore_texts(model, source)
    onnx.checker.check_model(light.as_inputs(), full_check=True)
    return light


def _restore_texts(model: onnx.ModelProto, source: onnx.ModelProto) -> None:
    model.doc_string, model.domain, model.model_version = (
        source.doc_string,
        source.domain,
        source.model_version,
    )
    texts = {tensor.name: tensor.doc_string for tensor in source.graph.initializer if tensor.doc_string}
    for tensor in model.graph.initializer:
        tensor.doc_string = texts.get(tensor.name, "")
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in source.metadata_props})
    nodes = {node.output[0]: node for node in source.graph.node if node.output}
    for node in model.graph.node:
        if original := nodes.get(node.output[0]):
            node.doc_string = original.doc_string
            node.metadata_props.extend(original.metadata_props)
    values = {value.name: value for value in (*source.graph.input, *source.graph.output)}
    for value in (*model.graph.input, *model.graph.output):
        if original_value := values.get(value.name):
            value.doc_string = original_value.doc_string
