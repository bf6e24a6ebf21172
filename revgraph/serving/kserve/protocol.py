"""The Open Inference Protocol's requests and responses, from kserve's types to arrays and back.

What a client can get wrong ends in an `InvalidInput`, which both HTTP and gRPC have a status for.
"""

import struct
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from kserve import InferInput, InferOutput, InferRequest, InferResponse
from kserve.errors import InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.infer_type import RequestedOutput
from kserve.protocol.rest.v2_datamodels import InferenceRequest, RequestInput
from kserve.utils.numpy_codec import from_np_dtype
from pydantic import ValidationError

from revgraph.serving.kserve.service import Tensor

BINARY_SIZE, BINARY_OUTPUT, BINARY_OUTPUTS = "binary_data_size", "binary_data", "binary_data_output"


class _Input(RequestInput):
    data: list[Any] | None = None


class _Head(InferenceRequest):
    """The JSON before binary data, in which tensors need no data of their own."""

    inputs: list[_Input]


class Plane(DataPlane):
    """kserve's way from a request to a model, with a reader of binary tensors of its own.

    kserve's makes a list of numbers of each, takes bytes for text, and calls a malformed one its own fault.
    """

    def decode_inference_request(
        self, body: bytes | InferenceRequest, headers: Mapping[str, str], model_name: str
    ) -> InferRequest:
        """A request as kserve's type; raises InvalidInput."""
        if not isinstance(body, bytes):
            return super().decode_inference_request(body, headers, model_name)
        size = headers.get("inference-header-content-length", "")
        if not size.isdecimal():
            raise InvalidInput(f"header Inference-Header-Content-Length is '{size}' (the length of the JSON)")
        try:
            head = _Head.model_validate_json(body[: int(size)])
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InvalidInput(f"cannot read the request: {where}: {first['msg']}") from error
        inputs = [InferInput(i.name, i.shape, i.datatype, i.data, i.parameters) for i in head.inputs]
        return InferRequest(
            model_name,
            inputs,
            head.id,
            _binary(head.inputs, body[int(size) :]),
            parameters=head.parameters,
            request_outputs=[RequestedOutput(o.name, o.parameters) for o in head.outputs or ()],
        )


def _binary(inputs: list[_Input], rest: bytes) -> list[bytes | None]:
    """Each input's part of what follows the JSON; None for those that have their data in it."""
    found = list[bytes | None]()
    for tensor in inputs:
        size = (tensor.parameters or {}).get(BINARY_SIZE)
        if (size is None) == (tensor.data is None):
            raise InvalidInput(f"input '{tensor.name}' needs either data or {BINARY_SIZE}")
        if size is not None and not (type(size) is int and 0 <= size <= len(rest)):
            raise InvalidInput(
                f"input '{tensor.name}' has {BINARY_SIZE} {size}, and {len(rest)} bytes are left"
            )
        found.append(None if size is None else rest[: int(size)])
        rest = rest if size is None else rest[int(size) :]
    if rest:
        raise InvalidInput(f"{len(rest)} bytes follow the last input")
    return found


def arrays(request: InferRequest) -> dict[str, np.ndarray]:
    """The inputs by name; of bytes, an array of objects."""
    if len({given.name for given in request.inputs}) < len(request.inputs):
        raise InvalidInput("an input was given twice")
    return {given.name: _array(given) for given in request.inputs}


def _array(given: InferInput) -> np.ndarray:
    what = f"cannot read input '{given.name}', {given.datatype} {given.shape}"
    if any(n < 0 for n in given.shape):
        raise InvalidInput(f"{what}: its shape is below 0")
    try:
        array = given.as_numpy()
    except (ValueError, TypeError, OverflowError, struct.error) as error:
        raise InvalidInput(f"{what}: {error}") from error
    if array.dtype == object:  # JSON's texts are meant as their bytes
        flat = [text.encode() if isinstance(text, str) else text for text in array.ravel()]
        if not all(isinstance(data, bytes) for data in flat):
            raise InvalidInput(f"{what}: its elements are not bytes")
        array = np.array([*flat, None], object)[:-1].reshape(array.shape)
    return np.asarray(array)


def response(request: InferRequest, name: str, found: Mapping[str, np.ndarray]) -> InferResponse:
    """The outputs by name, each in binary form or not as the request wants it."""
    everywhere = request.use_binary_outputs
    binary = {o.name: o.binary_data for o in request.request_outputs or ()}
    asked = {key: everywhere if binary.get(key) is None else binary[key] for key in found}
    outputs = []
    for key, array in found.items():
        if array.dtype == object and not asked[key] and not request.from_grpc:
            _check_text(key, array)
        outputs.append(InferOutput(key, list(array.shape), from_np_dtype(array.dtype), np.asarray(array)))
    return InferResponse(
        request.id or str(uuid.uuid4()),
        name,
        outputs,
        requested_outputs=[RequestedOutput(key, {BINARY_OUTPUT: value}) for key, value in asked.items()],
    )


def _check_text(name: str, array: np.ndarray) -> None:
    """JSON has no bytes but text."""
    try:
        for data in array:
            data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"cannot send output '{name}' as JSON: ask for it with {BINARY_OUTPUT}") from error


def described(tensors: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """What the metadata say of inputs or outputs."""
    return [
        {"name": tensor.name, "datatype": from_np_dtype(tensor.dtype), "shape": list(tensor.shape)}
        for tensor in tensors.values()
    ]
