"""The server: HTTP and gRPC before one model, with limits on size, time and number of requests."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import Any, NoReturn

import grpc
import uvicorn
from fastapi import FastAPI
from grpc_interceptor import AsyncExceptionToStatusInterceptor
from kserve import InferRequest, InferResponse, Model, ModelRepository
from kserve.errors import InvalidInput, ModelNotFound
from kserve.logging import logger
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as v2
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import metrics_handler
from kserve.protocol.rest.v2_endpoints import register_v2_endpoints
from prometheus_client import Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from revgraph.errors import RevgraphError
from revgraph.serving import Limits
from revgraph.serving.kserve import protocol
from revgraph.serving.kserve.batches import Batches
from revgraph.serving.kserve.service import Answer, Job, Service

REQUESTS = Counter("revgraph_requests", "requests that reached the model", ["model_name", "outcome"])
IMAGES = Histogram(
    "revgraph_batch_images", "images of a batch", ["model_name"], buckets=[2**i for i in range(8)]
)

WAITING = 64
"""Most connections of HTTP, and most requests of gRPC, at once; more are told to come back."""

PATIENCE = 4
"""After so many times the limit of one step a connection is cut, whatever it waits for."""

TEXT = 500
"""Most letters of an error: what a client wrote is in some."""

LENGTH = "inference-header-content-length"

STATUS = {
    InvalidInput: (HTTPStatus.BAD_REQUEST, grpc.StatusCode.INVALID_ARGUMENT),
    RevgraphError: (HTTPStatus.BAD_REQUEST, grpc.StatusCode.INVALID_ARGUMENT),
    ModelNotFound: (HTTPStatus.NOT_FOUND, grpc.StatusCode.NOT_FOUND),
    NotImplementedError: (HTTPStatus.NOT_IMPLEMENTED, grpc.StatusCode.UNIMPLEMENTED),
    TimeoutError: (HTTPStatus.GATEWAY_TIMEOUT, grpc.StatusCode.DEADLINE_EXCEEDED),
}
"""How a client is told; anything else is a bug, of which it learns no more than that."""


async def serve(
    service: Service,
    host: str,
    http_port: int,
    grpc_port: int,
    limits: Limits,
    started: Callable[[str, str], object],
) -> None:
    """Serve until the process is interrupted or terminated; requests that run are answered.

    Args:
        service: The one model.
        host: The address to listen on; "0.0.0.0" is every IPv4 address of the machine.
        http_port: 0 for any that is free, as for `grpc_port`.
        grpc_port: As said.
        limits: On each request.
        started: Told the addresses of HTTP and gRPC.

    Raises:
        RevgraphError: It cannot listen there.
    """
    models = ModelRepository()
    models.update(Served(service, limits))
    plane = DataPlane(models)
    rpc = _rpc(plane, limits)
    http = _Http(_app(plane, limits), rpc, limits)
    for number in signal.SIGINT, signal.SIGTERM:  # until uvicorn listens to them, and when it repeats them
        signal.signal(number, lambda *_: setattr(http, "should_exit", True))
    with _listening(host, http_port) as listening:
        rpc_port = _bound(rpc, _address(host, grpc_port))
        await rpc.start()
        port = listening.getsockname()[1]
        started(f"http://{_address(host, port)}/v2/models/{service.name}", _address(host, rpc_port))
        await http.serve(sockets=[listening])


# ----- The model -----


class Served(Model):
    """The service as kserve calls it."""

    def __init__(self, service: Service, limits: Limits) -> None:
        super().__init__(service.name)
        self._service, self._limits = service, limits
        self._beside = ThreadPoolExecutor(min(4, os.cpu_count() or 1))  # a large picture takes 500 MB
        observe = IMAGES.labels(service.name).observe
        self._batches = Batches[Job, Answer](service.run, limits.batch, ThreadPoolExecutor(1), observe)
        self.ready = True

    async def get_input_types(self) -> list[dict[str, Any]]:
        return protocol.described(self._service.inputs)

    async def get_output_types(self) -> list[dict[str, Any]]:
        return protocol.described(self._service.outputs)

    async def predict(self, payload: InferRequest, headers: Any = None) -> InferResponse:
        outcome = "failed"
        try:
            async with asyncio.timeout(self._limits.seconds):
                found = await self._answer(payload)
            outcome = "answered"
        except TimeoutError as error:
            outcome = "late"
            raise TimeoutError(f"there was no answer within {self._limits.seconds:g} seconds") from error
        except (InvalidInput, RevgraphError):
            outcome = "refused"
            raise
        finally:
            REQUESTS.labels(self.name, outcome).inc()
        return found

    async def _answer(self, request: InferRequest) -> InferResponse:
        loop = asyncio.get_running_loop()
        job = await loop.run_in_executor(self._beside, self._job, request)
        answer = await self._batches.answer(job)
        return await loop.run_in_executor(self._beside, self._response, request, job, answer)

    def _job(self, request: InferRequest) -> Job:
        wanted = [output.name for output in request.request_outputs or ()]
        return self._service.job(protocol.arrays(request), wanted)

    def _response(self, request: InferRequest, job: Job, answer: Answer) -> InferResponse:
        return protocol.response(request, self.name, self._service.finish(job, answer))


class _Fixed(ModelRepositoryExtension):
    """Clients neither load nor unload models."""

    async def load(self, model_name: str) -> NoReturn:
        raise InvalidInput("this server loads no models while it runs")

    async def unload(self, model_name: str) -> NoReturn:
        raise InvalidInput("this server unloads no models while it runs")


# ----- HTTP -----


def _app(plane: DataPlane, limits: Limits) -> ASGIApp:
    app = FastAPI(title="revgraph", docs_url=None, redoc_url=None)
    app.add_api_route("/metrics", metrics_handler, methods=["GET"])

    async def infer(name: str, request: Request) -> Response:
        body, size = await request.body(), request.headers.get(LENGTH)
        read = await asyncio.to_thread(protocol.read, body, size, name)
        found, _ = await plane.infer(name, read)
        content, size = await asyncio.to_thread(protocol.written, found)
        kind = "application/json" if size is None else "application/octet-stream"
        return Response(content, media_type=kind, headers={} if size is None else {LENGTH: size})

    async def versioned(request: Request) -> Response:
        raise NotImplementedError("there are no versions of a model")

    # Before kserve's own, which read bodies where they hold up everybody.
    app.add_api_route("/v2/models/{name}/infer", infer, methods=["POST"])
    app.add_api_route("/v2/models/{name}/versions/{version}/infer", versioned, methods=["POST"])
    register_v2_endpoints(app, plane, _Fixed(plane.model_registry))
    for kind in (*STATUS, HTTPException, Exception):
        app.add_exception_handler(kind, _told)
    return _Bounded(app, limits)


async def _told(request: Request, error: Exception) -> JSONResponse:
    """An error as clients of the protocol expect it."""
    if isinstance(error, HTTPException):
        return _error(error.status_code, error.detail)
    known = next((status for kind, (status, _) in STATUS.items() if isinstance(error, kind)), None)
    return _error(known or HTTPStatus.INTERNAL_SERVER_ERROR, str(error) if known else "internal error")


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": _line(text)}, status)


def _line(text: str) -> str:
    """As one line of text that any protocol can carry."""
    return " ".join(text.encode(errors="replace").decode().split())[:TEXT]


class _Http(uvicorn.Server):
    """Stops gRPC when it stops."""

    def __init__(self, app: ASGIApp, rpc: grpc.aio.Server, limits: Limits) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=partial(_Connection, limits.seconds),
                log_config=None,
                access_log=False,
                lifespan="off",
                limit_concurrency=WAITING,
                timeout_graceful_shutdown=int(limits.seconds),
            )
        )
        self._rpc, self._grace = rpc, limits.seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.gather(super().shutdown(sockets), self._rpc.stop(self._grace))


class _Connection(AutoHTTPProtocol):
    """A connection that is cut when no request comes, or when the client does not take its answer."""

    def __init__(self, seconds: float, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._seconds, self._seen, self._times = seconds, object(), 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._look()

    def _look(self) -> None:
        """Cut it if it is where it was the last time, and again after as long."""
        self._times = self._times + 1 if self.cycle is self._seen else 0
        self._seen = self.cycle
        idle = self.cycle is None or self.cycle.response_complete
        if self._times >= (1 if idle else PATIENCE):
            self.transport.abort()
        if not self.transport.is_closing():
            self.loop.call_later(self._seconds, self._look)


class _Bounded:
    """Refuses bodies that are too large, and those that do not arrive in time."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        late, count = asyncio.get_running_loop().time() + self._limits.seconds, 0

        async def bounded() -> Message:
            nonlocal count
            try:
                async with asyncio.timeout_at(late):
                    message = await receive()
            except TimeoutError as error:
                why = f"the request took longer than {self._limits.seconds:g} seconds to arrive"
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, why) from error
            count += len(message.get("body", b""))
            self._check(count)
            return message

        try:
            self._check(int(dict(scope["headers"]).get(b"content-length", b"0")))
        except HTTPException as error:
            await _error(error.status_code, error.detail)(scope, receive, send)
        else:
            await self._app(scope, bounded, send)

    def _check(self, size: int) -> None:
        if size > self._limits.bytes:
            why = f"the request is larger than {self._limits.bytes:,} bytes"
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        why, remedy = error.strerror or str(error), "another port or host"
        raise RevgraphError(f"cannot listen on {_address(host, port)}", why, remedy) from error
    # As asyncio does for sockets of its own making; else a small answer waits 40 ms for an acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# ----- gRPC -----


def _rpc(plane: DataPlane, limits: Limits) -> grpc.aio.Server:
    options = {
        "grpc.max_receive_message_length": limits.bytes,
        "grpc.max_send_message_length": -1,
        # A request that does not arrive is given up with its connection; others move to a new one.
        "grpc.max_connection_age_ms": int(1000 * limits.seconds),
        "grpc.max_connection_age_grace_ms": int(2000 * limits.seconds),
        "grpc.so_reuseport": 0,  # two servers would share a port, each with half of the requests
    }
    server = grpc.aio.server(
        interceptors=[_Status()], options=list(options.items()), maximum_concurrent_rpcs=WAITING
    )
    servicer = InferenceServicer(plane, _Fixed(plane.model_registry))
    v2.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    return server


class _Status(AsyncExceptionToStatusInterceptor):
    async def handle_exception(
        self, ex: Exception, request_or_iterator: Any, context: grpc.aio.ServicerContext, method_name: str
    ) -> NoReturn:
        known = next((code for kind, (_, code) in STATUS.items() if isinstance(ex, kind)), None)
        if known is None:
            logger.error("bug in %s", method_name, exc_info=ex)
        await context.abort(known or grpc.StatusCode.INTERNAL, _line(str(ex)) if known else "internal error")
        raise ex


def _bound(server: grpc.aio.Server, address: str) -> int:
    try:
        return int(server.add_insecure_port(address))
    except RuntimeError as error:
        why = "gRPC cannot use that address"
        raise RevgraphError(f"cannot listen on {address}", why, "another port or host") from error
