"""A model repository for NVIDIA Triton's ONNX Runtime backend.

Four models, each in a folder of its own: the forward graph, the reversed graph, an ensemble that runs them
in turn and keeps the bottleneck on the server, and the fused graph, which chooses its neuron by itself.
Triton hides the axis of the batch: where it batches, that axis is free in all tensors, and in no config.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from revgraph import pair, storing
from revgraph.declared import in_numbers, shape_of
from revgraph.errors import RevgraphError
from revgraph.pair import Compiled
from revgraph.runtime import Device
from revgraph.serving import LIMITS, Written
from revgraph.weights import LightModel

TYPES = {
    "BOOL": "TYPE_BOOL",
    "DOUBLE": "TYPE_FP64",
    "FLOAT": "TYPE_FP32",
    "FLOAT16": "TYPE_FP16",
    **{f"{sign}INT{bits}": f"TYPE_{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
"""ONNX's element types as Triton calls them."""


class Word(str):
    """A word of the text format that stands without quotes, an enumeration's."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or an output of a model, the axis of the batch included.

    Attributes:
        name: As the graph calls it.
        kind: Triton's name of its element type.
        dims: Its shape; -1 where it is free.
    """

    name: str
    kind: Word
    dims: tuple[int, ...]

    @property
    def batched(self) -> bool:
        """Whether Triton may run several requests at once, as far as this tensor is concerned."""
        return self.dims[:1] == (-1,)

    def declared(self, batching: bool, reshape: bool = True) -> dict[str, Any]:
        """Its entry in a config; Triton wants at least one axis beside the batch's, and can drop it."""
        dims = list(self.dims[1:] if batching else self.dims)
        entry: dict[str, Any] = {"name": self.name, "data_type": self.kind, "dims": dims or [1]}
        return entry if dims or not reshape else entry | {"reshape": {"shape": []}}


@dataclass(frozen=True, slots=True)
class Model:
    """What a graph takes and gives."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @classmethod
    def of(cls, light: LightModel) -> "Model":
        graph = light.model.graph
        return cls(tuple(map(_tensor, graph.input)), tuple(map(_tensor, graph.output)))


def repository(
    folder: Path, compiled: Compiled, choose: str = "max", batch: int = LIMITS.batch, device: str = "cpu"
) -> Written:
    """The files of a model repository, with a line on each.

    Args:
        folder: The repository.
        compiled: What is served. Where any of its tensors has a batch of a fixed size, Triton does not batch.
        choose: How the fused model chooses its neurons, as `Compiled.fused` takes it.
        batch: How many requests' pictures at most are run at once.
        device: "cpu", "cuda" or "cuda:1": all models are on it, so that the bottleneck need not move.

    Raises:
        RevgraphError: There is no such choice, or a tensor has a type that Triton does not know.
    """
    name = f"{compiled.name}.{compiled.variant}"
    parts = {
        f"{name}.forward": (compiled.light_forward, pair.ENDS["forward.onnx"]),
        f"{name}.reversed": (compiled.light_reversed, pair.ENDS["reversed.onnx"]),
        f"{name}.{choose}": (compiled.light_fused(choose), f"both in one, which choose p by {choose}"),
    }
    models = {part: Model.of(light) for part, (light, _) in parts.items()}
    every = [tensor for model in models.values() for tensor in (*model.inputs, *model.outputs)]
    batch = batch if all(tensor.batched for tensor in every) else 0
    written: Written = {}
    for part, (light, what) in parts.items():
        version = folder / part / "1"
        config = _config(part, models[part], batch, _backend(batch, device))
        written[folder / part / "config.pbtxt"] = (config, "")
        for path, content in storing.stored(
            {version / "model.onnx": light}, version / "model.weights"
        ).items():
            written[path] = (content, what if path.suffix == ".onnx" else "its weights")
    halves = {part: models[part] for part in (f"{name}.forward", f"{name}.reversed")}
    config = _ensemble(name, halves, compiled.taps, batch)
    written[folder / name / "config.pbtxt"] = (config, "forward, then reversed: x and p in, x_hat out")
    # Triton looks for a version of an ensemble too, though there is nothing in it.
    written[folder / name / "1" / ".keep"] = (b"", "")
    return written


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    if kind not in TYPES:
        why = f"'{value.name}' is of type {kind.lower()}"
        raise RevgraphError("cannot package this network for Triton", why, f"it knows {', '.join(TYPES)}")
    return Tensor(value.name, Word(TYPES[kind]), in_numbers(shape_of(value)))


# ---------------------------------------------------------------- configs


def _backend(batch: int, device: str) -> dict[str, Any]:
    """How the backend runs a model; where it batches, requests that wait are run together."""
    where = Device.of(device)
    group: dict[str, Any] = {"kind": Word("KIND_CPU"), "count": 1}
    if where.kind == "cuda":
        group = {"kind": Word("KIND_GPU"), "count": 1, "gpus": [where.index]}
    batching = {"dynamic_batching": {"max_queue_delay_microseconds": 100}} if batch else {}
    return {"backend": "onnxruntime", "instance_group": [group], **batching}


def _ensemble(name: str, halves: Mapping[str, Model], taps: Sequence[str], batch: int) -> bytes:
    """The config of one half after the other; what crosses between them is neither taken nor given."""
    forward, reverse = halves.values()
    whole = Model(
        (*forward.inputs, *(tensor for tensor in reverse.inputs if tensor.name not in taps)),
        (*(tensor for tensor in forward.outputs if tensor.name not in taps), *reverse.outputs),
    )
    steps = [_step(part, half) for part, half in halves.items()]
    rest = {"platform": "ensemble", "ensemble_scheduling": {"step": steps}}
    return _config(name, whole, batch, rest, reshape=False)


def _step(name: str, model: Model) -> dict[str, Any]:
    """A step of an ensemble, whose tensors are called as the model calls them."""
    maps = {"input_map": model.inputs, "output_map": model.outputs}
    same = {key: [{"key": t.name, "value": t.name} for t in tensors] for key, tensors in maps.items()}
    return {"model_name": name, "model_version": -1, **same}


def _config(name: str, model: Model, batch: int, rest: Mapping[str, Any], reshape: bool = True) -> bytes:
    message = {
        "name": name,
        "max_batch_size": batch,
        "input": [tensor.declared(batch > 0, reshape) for tensor in model.inputs],
        "output": [tensor.declared(batch > 0, reshape) for tensor in model.outputs],
        **rest,
    }
    return ("\n".join(_lines(message)) + "\n").encode()


def _lines(message: Mapping[str, Any], indent: str = "") -> Iterable[str]:
    """Protobuf's text format; what repeats is written once for each."""
    for key, value in message.items():
        several = isinstance(value, Sequence) and not isinstance(value, str)
        for each in value if several and value and isinstance(value[0], Mapping) else [value]:
            if isinstance(each, Mapping):
                yield f"{indent}{key} {{"
                yield from _lines(each, indent + "  ")
                yield f"{indent}}}"
            else:
                text = each if isinstance(each, Word) else json.dumps(each, ensure_ascii=False)
                yield f"{indent}{key}: {text}"
