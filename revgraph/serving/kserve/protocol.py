"""The Open Inference Protocol's requests and responses, between bytes, kserve's types and arrays.

HTTP's are read here: kserve's reader makes a list of numbers of binary data, takes bytes for text, and calls
some malformed requests its own fault. What a client got wrong is an `InvalidInput`.
"""

import struct
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import orjson
from kserve import InferInput, InferOutput, InferRequest, InferResponse
from kserve.errors import InvalidInput
from kserve.protocol.infer_type import RequestedOutput
from kserve.utils.numpy_codec import from_np_dtype, to_np_dtype
from pydantic import BaseModel, FailFast, Field, ValidationError

from revgraph import finite
from revgraph.serving.kserve.service import Tensor

BINARY_SIZE, BINARY_OUTPUT = "binary_data_size", "binary_data"

KINDS = {"BOOL": "b", "INT": "iu", "UINT": "iu", "FP": "iuf"}
"""What numbers of JSON an input of a type may have, as NumPy's kinds; by the type without its bits."""


class _Named(BaseModel):
    name: str
    parameters: dict[str, Any] | None = None


class _Input(_Named):
    # Each of a million errors would be noted: hence FailFast.
    shape: Annotated[list[int], FailFast(), Field(max_length=8)]
    datatype: str
    data: list[Any] | None = None


class _Head(BaseModel):
    """The JSON of a request; tensors in binary form have no data of their own in it."""

    id: str | None = None
    parameters: dict[str, Any] | None = None
    inputs: Annotated[list[_Input], FailFast(), Field(max_length=16)]
    outputs: Annotated[list[_Named], FailFast(), Field(max_length=64)] = []


def read(body: bytes, size: str | None, name: str) -> InferRequest:
    """The request of an HTTP body.

    Args:
        body: JSON, then perhaps binary data.
        size: The header Inference-Header-Content-Length, where those begin; None if there are none.
        name: The model's.

    Raises:
        InvalidInput: It is malformed.
    """
    size = str(len(body)) if size is None else size
    if not size.isdecimal() or len(size) > 20:
        raise InvalidInput(f"header Inference-Header-Content-Length is '{size}' (the length of the JSON)")
    try:
        head = _Head.model_validate_json(body[: int(size)])
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"cannot read the request: {where}: {first['msg']}") from error
    return InferRequest(
        name,
        [InferInput(i.name, i.shape, i.datatype, i.data, i.parameters) for i in head.inputs],
        head.id,
        _binary(head.inputs, body[int(size) :]),
        parameters=head.parameters,
        request_outputs=[RequestedOutput(o.name, o.parameters) for o in head.outputs],
    )


def _binary(inputs: Sequence[_Input], rest: bytes) -> list[bytes | None]:
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
        found.append(None if size is None else rest[:size])
        rest = rest[size or 0 :]
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
    if given.data is not None and given.datatype != "BYTES":
        _check_numbers(given, what)
    try:
        array = given.as_numpy()
    except (ValueError, TypeError, OverflowError, struct.error) as error:
        raise InvalidInput(f"{what}: {error}") from error
    return _bytes(array, what) if array.dtype == object else np.asarray(array)


def _check_numbers(given: InferInput, what: str) -> None:
    """NumPy would take 1.7 for the class 1, and null for NaN."""
    kinds = KINDS.get(given.datatype.rstrip("0123456789"), "")
    if to_np_dtype(given.datatype) is None or not kinds:
        raise InvalidInput(f"{what}: there is no such datatype")
    try:
        kind = np.array(given.data).dtype.kind
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{what}: {error}") from error
    if kind not in kinds and len(given.data):
        raise InvalidInput(f"{what}: its data are not all numbers of that type")


def _bytes(array: np.ndarray, what: str) -> np.ndarray:
    """JSON's texts are meant as their bytes."""
    found = np.empty(array.shape, object)
    for place, text in np.ndenumerate(array):
        if not isinstance(text, bytes | str):
            raise InvalidInput(f"{what}: its elements are not bytes")
        found[place] = text.encode(errors="replace") if isinstance(text, str) else text
    return found


def response(request: InferRequest, name: str, found: Mapping[str, np.ndarray]) -> InferResponse:
    """The outputs by name, each in binary form or not as the request wants it."""
    everywhere = request.use_binary_outputs
    wanted = {o.name: o.binary_data for o in request.request_outputs or ()}
    binary = {key: everywhere if wanted.get(key) is None else wanted[key] for key in found}
    outputs = []
    for key, array in found.items():
        if not binary[key] and not request.from_grpc:
            _check_json(key, array)
        outputs.append(InferOutput(key, list(array.shape), from_np_dtype(array.dtype), np.asarray(array)))
    return InferResponse(
        request.id or str(uuid.uuid4()),
        name,
        outputs,
        requested_outputs=[RequestedOutput(key, {BINARY_OUTPUT: value}) for key, value in binary.items()],
    )


def _check_json(name: str, array: np.ndarray) -> None:
    """JSON has no bytes but text, and no numbers that are not finite: its writer would say null."""
    why = ""
    if array.dtype != object:
        why = "" if finite.is_finite(array) else f"it holds {finite.said(array)}, "
    else:
        try:
            for data in array:
                data.decode()
        except UnicodeDecodeError:
            why = "it holds bytes, "
    if why:
        raise InvalidInput(f"cannot send output '{name}' as JSON: {why}ask for it with {BINARY_OUTPUT}")


def written(answer: InferResponse) -> tuple[bytes, str | None]:
    """The body of an answer over HTTP, and where in it binary data begin."""
    content, size = answer.to_rest()
    return (orjson.dumps(content), None) if size is None else (content, str(size))


def described(tensors: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """What the metadata say of inputs or outputs."""
    return [
        {"name": tensor.name, "datatype": from_np_dtype(tensor.dtype), "shape": list(tensor.shape)}
        for tensor in tensors.values()
    ]
