"""Weights travel beside the model, not through it.

Protobuf serialises no message above 2 GiB, and onnx's passes copy a model several times over.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import onnx

MIN_ELEMENTS = 1024
"""Smaller initializers stay: among them are the shapes and axes that inference reads."""

TOO_LARGE = (
    "beside its large initializers it holds more than 2 GiB, protobuf's limit",
    "store weights as initializers of an ordinary type",
)
"""Why even a light model may be too large, and what would work."""

Weights = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class LightModel:
    """A model without the data of its large initializers, and that data.

    Attributes:
        model: Its large initializers are marked as external data, of no file.
        weights: Their data by name, in their order. Models that share a weight share the array.
    """

    model: onnx.ModelProto
    weights: Weights

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, LightModel)
            and self.model == other.model
            and sha256(*self.weights.values()) == sha256(*other.weights.values())
        )

    @property
    def nbytes(self) -> int:
        """About the size of the whole model as one file."""
        return int(self.model.ByteSize()) + sum(array.nbytes for array in self.weights.values())

    def whole(self) -> onnx.ModelProto:
        """The model as one message; above 2 GiB it is of use in memory, but cannot be serialised."""
        return self._each(fill)

    def stored_in(self, file: str, offsets: Mapping[str, int]) -> onnx.ModelProto:
        """The model with its weights as external data that begin at these offsets of a file beside it."""

        def refer(tensor: onnx.TensorProto, array: np.ndarray) -> None:
            place = {"location": file, "offset": offsets[tensor.name], "length": array.nbytes}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))

        return self._each(refer)

    def _each(self, change: Callable[[onnx.TensorProto, np.ndarray], None]) -> onnx.ModelProto:
        """A copy of the model in which `change` was made to each large initializer."""
        model = _copy(self.model)
        for tensor in model.graph.initializer:
            if tensor.name in self.weights:
                change(tensor, self.weights[tensor.name])
        return model

    def as_inputs(self) -> onnx.ModelProto:
        """The model with its weights as inputs: onnx's passes would look for the file of external data."""
        model = _copy(self.model)
        inputs = {value.name for value in model.graph.input}
        del model.graph.initializer[:]
        for tensor in self.model.graph.initializer:
            if tensor.name not in self.weights:
                model.graph.initializer.append(tensor)
            elif tensor.name not in inputs:
                value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                model.graph.input.append(value)
        return model


def detach(model: onnx.ModelProto, read: Mapping[str, np.ndarray] = MappingProxyType({})) -> LightModel:
    """A light copy of a model.

    Args:
        model: It stays as it is.
        read: What was read of its external data already; of those initializers it has but a `stub`.
    """
    light, graph = _copy(model, leaving="graph"), _copy(model.graph, leaving="initializer")
    weights: Weights = {}
    for tensor in model.graph.initializer:
        if tensor.name in read:
            weights[tensor.name] = read[tensor.name]
        elif is_weight(tensor) and len(data := tensor.raw_data) == expected_bytes(tensor):
            weights[tensor.name] = as_array(tensor, np.frombuffer(data, np.uint8))
            doc_string = tensor.doc_string if tensor.HasField("doc_string") else None
            tensor = stub(tensor.name, tensor.data_type, tensor.dims, doc_string)
        graph.initializer.append(tensor)
    light.graph.CopyFrom(graph)
    return LightModel(light, weights)


def of(model: onnx.ModelProto, held: Weights) -> LightModel:
    """A light model whose weights are among those held."""
    names = (tensor.name for tensor in model.graph.initializer)
    return LightModel(model, {name: held[name] for name in names if name in held})


def stub(name: str, data_type: int, dims: Iterable[int], doc_string: str | None = None) -> onnx.TensorProto:
    """What a light model has in place of a large initializer."""
    external = onnx.TensorProto.EXTERNAL
    return onnx.TensorProto(
        name=name, data_type=data_type, dims=dims, doc_string=doc_string, data_location=external
    )


def is_weight(tensor: onnx.TensorProto) -> bool:
    """Whether a light model keeps an initializer beside, if its data is what type and shape ask for."""
    large = min(tensor.dims, default=0) > 0 and math.prod(tensor.dims) >= MIN_ELEMENTS
    return large and expected_bytes(tensor) is not None


def expected_bytes(tensor: onnx.TensorProto) -> int | None:
    """The bytes that shape and type ask for; None for the types that NumPy itself does not have."""
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, TypeError):
        return None
    return dtype.itemsize * math.prod(tensor.dims) if _is_plain(dtype) else None


def is_large(array: np.ndarray) -> bool:
    """Whether an array is a weight that a light model keeps beside."""
    return array.size >= MIN_ELEMENTS and _is_plain(array.dtype)


def _is_plain(dtype: np.dtype[Any]) -> bool:
    return dtype.isbuiltin == 1 and dtype.kind in "biuf"


def as_array(tensor: onnx.TensorProto, data: np.ndarray) -> np.ndarray:
    """Bytes (uint8) as the values of a tensor."""
    return data.view(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).reshape(tensor.dims)


def sha256(*parts: bytes | np.ndarray) -> str:
    """Of bytes and arrays in turn; an array that comes again is not read again."""
    whole, known = hashlib.sha256(), dict[tuple[int, int], bytes]()
    for part in parts:
        if isinstance(part, np.ndarray):
            place = (part.ctypes.data, part.nbytes)
            if place not in known:
                known[place] = hashlib.sha256(part.data).digest()
            part = known[place]
        whole.update(part)
    return whole.hexdigest()


def fill(tensor: onnx.TensorProto, array: np.ndarray) -> None:
    """Put data into a tensor that referred to it."""
    tensor.ClearField("data_location")
    tensor.raw_data = array.tobytes()


_Proto = TypeVar("_Proto", onnx.ModelProto, onnx.GraphProto)


def _copy(source: _Proto, leaving: str = "") -> _Proto:
    """A copy without one field, which may be more than protobuf can copy."""
    result = type(source)()
    for field, value in source.ListFields():
        if field.name == leaving:
            continue
        if hasattr(value, "extend"):
            getattr(result, field.name).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(result, field.name).CopyFrom(value)
        else:
            setattr(result, field.name, value)
    return result
