"""canonical -> reverse -> simplify -> lower -> check: an ONNX model in, the pair of ONNX graphs out."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

import onnx
from google.protobuf.message import EncodeError

import revgraph
from revgraph import canonical, files, layer, pair, variants, weights
from revgraph.canonical import convolutional, half, on_model, patterns
from revgraph.errors import RevgraphError
from revgraph.graph import Builder, export, gs, tensor_names
from revgraph.lower.target import lower
from revgraph.lower.targets import BOTTLENECKS, TARGETS
from revgraph.pair import Compiled
from revgraph.reverse import reverse
from revgraph.scaling import keep_in_range
from revgraph.simplify import simplify
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
        RevgraphError: The model cannot be read, or a layer of it cannot be reversed.
    """
    _check_choice("variant", variant, variants.VARIANTS)
    _check_choice("reversal of LRN", lrn or "identity", variants.LRN)
    _check_choice("target", target, TARGETS)
    _check_choice("bottleneck", bottleneck, BOTTLENECKS)
    _check_precision(precision, target)
    source, name, sha256 = read_source(model)
    graph, x, y = locate(source, at, input, fully_convolutional)
    if not any(y is output for output in graph.outputs):
        graph.outputs.append(y)
    fwd = Builder(graph, {*graph.tensors(), "p", "x_hat"})
    if precision == "fp16":
        half.in_half(fwd, y)
    outputs = len(graph.outputs)
    tensors = set(graph.tensors())
    with patterns.grouped(graph, y):
        rev, signals = reverse(fwd, variants.rules(variant, lrn), x, y)
        beyond = [node.name for node in layer.path(graph, x, y) if node.op in variants.BEYOND]
    places, packing = BOTTLENECKS[bottleneck]
    place = places[target]
    simplify(place.passes, fwd, rev)
    scales = keep_in_range(rev)
    lower(packing(place, rev.graph), fwd, rev)
    options = {
        "version": revgraph.__version__,
        "variant": variant,
        "at": y.name,
        "input": x.name,
        "lrn": lrn or variants.lrn_of(variant),
        "target": target,
        "precision": precision,
        "bottleneck": bottleneck,
        "taps": json.dumps([tap.name for tap in graph.outputs[outputs:]]),
        "source_sha256": sha256,
        "fully_convolutional": str(fully_convolutional).lower(),
        "beyond_paper": json.dumps(beyond),
    }
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()
    forward, backward = _export(graph, source.model), _export(rev.graph, None)
    # Of groups that one node stood for, and of what a target merged, the inner tensors are not there.
    tensors &= graph.tensors().keys()
    written = {"p", *(name for node in backward.model.graph.node for name in node.output)}
    kept = {tensor: x_hat for tensor, x_hat in signals.items() if tensor in tensors and x_hat in written}
    noted = {"pair": digest, "signals": json.dumps(kept)}
    if scaled := {x_hat: scales[x_hat] for x_hat in kept.values() if x_hat in scales}:
        noted["scales"] = json.dumps(scaled)
    return pair.tie(name, forward, backward, options | noted)


def locate(
    source: LightModel, at: str | None, input: str | None, fully_convolutional: bool = False
) -> tuple[gs.Graph, gs.Variable, gs.Variable]:
    """The canonical graph, and in it x and y; arguments and errors as for `compile`."""
    graph = canonical.canonicalise(source)
    if fully_convolutional:
        graph = convolutional.fully_convolutional(graph)
    y = layer.find_layer(graph, at, set(tensor_names(source.model)))
    return graph, layer.find_input(graph, y, input), y


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


def read_source(model: str | Path | onnx.ModelProto) -> tuple[LightModel, str, str]:
    """The model, its name, and its sha256: the file's, else one of what the model holds."""
    if isinstance(model, onnx.ModelProto):
        try:
            light = weights.detach(model)
            content = light.model.SerializeToString(deterministic=True)
        except EncodeError as error:
            raise RevgraphError("cannot take this model", *weights.TOO_LARGE) from error
        sha256 = weights.sha256(content, *light.weights.values())
        return light, re.sub(r"[^\w-]+", "_", model.graph.name).strip("_") or "model", sha256
    light, sha256 = files.read_model(Path(model))
    return light, Path(model).stem, sha256


def _export(graph: gs.Graph, source: onnx.ModelProto | None) -> LightModel:
    """The graph as a checked model, with the source's texts, which onnx-graphsurgeon drops."""
    graph.ir_version = graph.ir_version or on_model.IRS[0]
    light = export(graph)
    model = light.model
    model.producer_name, model.producer_version = "revgraph", revgraph.__version__
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
