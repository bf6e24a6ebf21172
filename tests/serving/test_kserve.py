"""The server as a process of its own, driven by NVIDIA's clients over HTTP and gRPC."""

import concurrent.futures
import contextlib
import importlib.util
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import networks
import numpy as np
import onnx
import pytest
import tritonclient.grpc
import tritonclient.http
from geventhttpclient.response import HTTPConnectionClosed
from PIL import Image
from tritonclient.utils import InferenceServerException

import revgraph
from revgraph import picture, recipe, zoo
from revgraph.explain import Explainer

# Not imported here: its messages and those of tritonclient have the same names.
SERVE = importlib.util.find_spec("kserve") is not None
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not SERVE, reason="the extra serve is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CLIENTS = {"http": tritonclient.http, "grpc": tritonclient.grpc}


class Server:
    """A running `revgraph serve`."""

    def __init__(self, folder: Path, *options: str, log: Path | None = None) -> None:
        command = [sys.executable, "-m", "revgraph", "serve", str(folder), *options]
        self.log = ((log or folder) / "log").open("w")
        self.process: Any = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        lines = [self.process.stdout.readline() for _ in range(2)]
        found = [re.search(r"127\.0\.0\.1:(\d+)", line) for line in lines]
        assert all(found), (lines, Path(self.log.name).read_text())
        self.ports = {
            name: int(match[1]) for name, match in zip(("http", "grpc"), found, strict=True) if match
        }

    def client(self, protocol: str) -> Any:
        return CLIENTS[protocol].InferenceServerClient(f"127.0.0.1:{self.ports[protocol]}")

    def fetch(self, path: str, data: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """Status, and JSON or text."""
        url = f"http://127.0.0.1:{self.ports['http']}/{path}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, named), timeout=60) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        try:
            return status, json.loads(body)
        except ValueError:
            return status, body.decode()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        status = self.process.wait(60)
        self.process.stdout.close()
        self.log.close()
        return status


@contextlib.contextmanager
def served(folder: Path, *options: str, log: Path | None = None) -> Iterator[Server]:
    server = Server(folder, "--http-port", "0", "--grpc-port", "0", *options, log=log)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small classifier, its pictures fed as ImageNet's are."""
    path = tmp_path_factory.mktemp("served")
    revgraph.compile(networks.cnn(), variant="desalinet", bottleneck="packed").save(path)
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with served(folder, "--max-bytes", "100000", "--time-limit", "3") as running:
        yield running


@pytest.fixture(scope="module")
def explainer(folder: Path) -> Explainer:
    return Explainer(revgraph.Session(revgraph.load(folder)), recipe.load("imagenet"))


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


def png(seed: int = 0) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


KINDS = {"float32": "FP32", "int64": "INT64", "object": "BYTES"}


def ask(client: Any, wanted: list[str] | None = None, **given: np.ndarray) -> Any:
    module: ModuleType = CLIENTS["http" if "http" in type(client).__module__ else "grpc"]
    inputs = []
    for name, array in given.items():
        tensor = module.InferInput(name, list(array.shape), KINDS[str(array.dtype)])
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    outputs = [module.InferRequestedOutput(name) for name in wanted] if wanted else None
    return client.infer("net", inputs, outputs=outputs)


def strongest(explainer: Explainer, x: np.ndarray) -> np.ndarray:
    trace = explainer.session.forward(x)
    p = (trace.y == trace.y.max(axis=1, keepdims=True)).astype(np.float32)
    return explainer.session.reverse(trace, p)


@pytest.mark.parametrize("protocol", CLIENTS)
def test_a_client_gets_what_a_session_gives(server, explainer, protocol):
    client = server.client(protocol)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("net")
    x = images(2)
    found = ask(client, x=x)
    np.testing.assert_allclose(found.as_numpy("x_hat"), strongest(explainer, x), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        found.as_numpy("prob"), explainer.session.forward(x).outputs["prob"], rtol=1e-5
    )
    data = np.array([png()], object)
    found = ask(client, ["x_hat", "x_hat_png", "channel"], picture=data)
    x = explainer.feed(picture.decode(io.BytesIO(png())))
    np.testing.assert_allclose(found.as_numpy("x_hat"), strongest(explainer, x), rtol=1e-5, atol=1e-7)
    assert found.as_numpy("channel").tolist() == explainer.session.forward(x).y.argmax(1).tolist()
    drawn = np.asarray(Image.open(io.BytesIO(found.as_numpy("x_hat_png")[0])))
    expected = picture.image_of(picture.tone_map(explainer.rgb(found.as_numpy("x_hat")[0])))
    np.testing.assert_array_equal(drawn, np.asarray(expected))


@pytest.mark.parametrize("protocol", CLIENTS)
def test_a_bottleneck_crosses_to_a_later_request(server, explainer, protocol):
    client, x = server.client(protocol), images(2)
    kept = ask(client, ["bottleneck"], x=x).as_numpy("bottleneck")
    classes = np.array([3, 1])
    later = ask(client, ["x_hat"], bottleneck=kept, **{"class": classes}).as_numpy("x_hat")
    p = np.eye(5, dtype=np.float32)[classes]
    expected = explainer.session.reverse(explainer.session.forward(x), p)
    np.testing.assert_allclose(later, expected, rtol=1e-5, atol=1e-7)


def test_the_metadata_say_what_goes_in_and_comes_out(server):
    found = server.client("http").get_model_metadata("net")
    assert found["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 3, 8, 8]}
    assert [tensor["name"] for tensor in found["inputs"]] == ["x", "class", "p", "picture", "bottleneck"]
    names = [tensor["name"] for tensor in found["outputs"]]
    assert names == ["prob", "logits", "x_hat", "channel", "x_hat_png", "saliency_png", "bottleneck"]
    rpc = server.client("grpc").get_model_metadata("net", as_json=True)
    assert [tensor["name"] for tensor in rpc["outputs"]] == names


def test_plain_json_will_do(server, explainer):
    x = images(1)
    body = {"inputs": [{"name": "x", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": x.ravel().tolist()}]}
    status, found = server.fetch(
        "v2/models/net/infer", json.dumps(body).encode(), Content_Type="application/json"
    )
    assert status == 200
    outputs = {tensor["name"]: np.reshape(tensor["data"], tensor["shape"]) for tensor in found["outputs"]}
    np.testing.assert_allclose(outputs["x_hat"], strongest(explainer, x), rtol=1e-5, atol=1e-7)


def test_many_clients_at_once_each_get_their_own_and_share_batches(server, explainer):
    def one(seed: int) -> None:
        x = images(1 + seed % 2, seed)
        client = server.client(("http", "grpc")[seed % 2])
        for _ in range(5):
            found = ask(client, ["x_hat"], x=x).as_numpy("x_hat")
            np.testing.assert_allclose(found, strongest(explainer, x), rtol=1e-4, atol=1e-6)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(32)))
    _, metrics = server.fetch("metrics")
    sizes = {size: float(n) for size, n in re.findall(r'batch_images_bucket\{le="([^"]+)".* (\S+)', metrics)}
    assert sizes["2.0"] < sizes["8.0"], "no requests were joined"
    assert sizes["8.0"] == sizes["+Inf"], "a batch was larger than asked for"
    (answered,) = re.findall(r'revgraph_requests_total\{.*outcome="answered"\} (\S+)', metrics)
    assert float(answered) >= 160


HEAD = b'{"inputs":[{"name":"x","shape":[1,3,8,8],"datatype":"FP32","parameters":{"binary_data_size":768}}]}'
BINARY = {"Content_Type": "application/octet-stream", "Inference_Header_Content_Length": str(len(HEAD))}
JSON = {"Content_Type": "application/json"}


@pytest.mark.parametrize(
    ("body", "headers", "why"),
    [
        (b"{", JSON, "cannot read the request"),
        (b"[" * 5000, JSON, "cannot read the request"),
        (b'{"inputs":[' + b"0," * 40_000 + b"0]}", JSON, "cannot read the request: inputs.0"),
        (b'{"inputs":[{"name":"\\ud800","shape":[1],"datatype":"FP32","data":[1]}]}', JSON, "cannot read"),
        (
            b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP\\n32","data":[1]}]}',
            JSON,
            "FP 32 [1]: there is no",
        ),
        (
            b'{"inputs":[{"name":"class","shape":[1],"datatype":"INT64","data":[1.7]}]}',
            JSON,
            "not all numbers",
        ),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[null]}]}', JSON, "not all numbers"),
        (
            b'{"inputs":[%s,%s]}' % ((b'{"name":"x","shape":[1],"datatype":"FP32","data":[1]}',) * 2),
            JSON,
            "an input was given twice",
        ),
        (b"{}", JSON, "cannot read the request: inputs: Field required"),
        (b'{"inputs":[]}', JSON, "nothing to explain"),
        (
            b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}',
            JSON,
            "input 'x' does not fit",
        ),
        (
            b'{"inputs":[{"name":"x","shape":[-1],"datatype":"FP32","data":[1]}]}',
            JSON,
            "its shape is below 0",
        ),
        (b'{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1]}]}', JSON, "cannot reshape"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":["a"]}]}', JSON, "not all numbers"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP31","data":[1]}]}', JSON, "datatype"),
        (b'{"inputs":[{"name":"picture","shape":[1],"datatype":"BYTES","data":[1]}]}', JSON, "not bytes"),
        (
            b'{"inputs":[{"name":"picture","shape":[1],"datatype":"BYTES","data":["a"]}]}',
            JSON,
            "not a picture",
        ),
        (HEAD + bytes(768), JSON, "cannot read the request"),
        (HEAD + bytes(767), BINARY, "has binary_data_size 768, and 767 bytes are left"),
        (HEAD + bytes(769), BINARY, "1 bytes follow the last input"),
        (HEAD + bytes(768), BINARY | {"Inference_Header_Content_Length": "x"}, "is 'x'"),
        (HEAD + bytes(768), BINARY | {"Inference_Header_Content_Length": "9" * 5000}, "is '99999"),
        (HEAD + bytes(768), BINARY | {"Inference_Header_Content_Length": "7"}, "cannot read the request"),
        (HEAD.replace(b"768", b"-68") + bytes(768), BINARY, "binary_data_size -68"),
        (HEAD.replace(b"8,8", b"8,9") + bytes(768), BINARY, "cannot reshape"),
    ],
)
def test_malformed_requests_are_told_why(server, body, headers, why):
    status, found = server.fetch("v2/models/net/infer", body, **headers)
    assert status == 400, found
    assert why in found["error"]
    assert "\n" not in found["error"]


def test_what_there_is_not(server):
    assert server.fetch("v2/models/net/versions/1/infer", HEAD + bytes(768), **BINARY)[0] == 501
    assert server.fetch("v2/models/other/infer", HEAD + bytes(768), **BINARY)[0] == 404
    assert server.fetch("v2/models/other")[0] == 404
    assert server.fetch("nothing")[0] == 404
    assert server.fetch("v2/repository/models/net/unload", b"")[0] == 400
    with pytest.raises(InferenceServerException, match="unloads no models"):
        server.client("grpc").unload_model("net")
    assert server.client("http").is_model_ready("net")


def test_bytes_cannot_go_as_json(server):
    x = {"name": "x", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": [0.0] * 192}
    body = json.dumps({"inputs": [x], "outputs": [{"name": "x_hat_png"}]}).encode()
    status, found = server.fetch("v2/models/net/infer", body, **JSON)
    assert (status, "ask for it with binary_data" in found["error"]) == (400, True)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e39"])
@pytest.mark.parametrize("name", ["x", "p"])
def test_json_that_is_not_finite_is_told_so(server, name, number):
    """Python's writer of JSON knows these; 1e39 is infinite as FP32."""
    numbers = {"x": [0.0] * 192, "p": [0.0] * 5}
    numbers[name][3] = float(number)
    shapes = {"x": [1, 3, 8, 8], "p": [1, 5]}
    inputs = [{"name": n, "shape": shapes[n], "datatype": "FP32", "data": numbers[n]} for n in numbers]
    body = json.dumps({"inputs": inputs}).replace("1e+39", "1e39").encode()
    status, found = server.fetch("v2/models/net/infer", body, **JSON)
    kind = "NaN" if number == "NaN" else "infinite"
    why = f"input '{name}' holds 1 {kind} of {len(numbers[name])} numbers, the first at "
    assert (status, why in found["error"]) == (400, True), found


def test_infinite_outputs_go_as_bytes_not_as_json(tmp_path):
    nodes = [networks.node("Relu", "x", "y"), networks.node("Log", "y", "log")]
    net = networks.model(nodes, ["N", 3, 8, 8], outputs=["y", "log"])
    revgraph.compile(net, variant="salinet", at="y").save(tmp_path)
    x = {"name": "x", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": [0.5] * 191 + [0.0]}
    body = json.dumps({"inputs": [x], "outputs": [{"name": "log"}]}).encode()
    with served(tmp_path) as running:
        status, found = running.fetch("v2/models/net/infer", body, **JSON)
        why = "as JSON: it holds 1 infinite of 192 numbers, the first at [0, 2, 7, 7], ask for it with binary"
        assert (status, why in found["error"]) == (400, True), found
        answer = ask(running.client("http"), ["log"], x=np.array(x["data"], np.float32).reshape(1, 3, 8, 8))
        assert answer.as_numpy("log")[0, 2, 7, 7] == -np.inf


@pytest.mark.parametrize("protocol", CLIENTS)
def test_a_bad_request_over_either_protocol(server, protocol):
    client = server.client(protocol)
    with pytest.raises(InferenceServerException, match="unknown class 9"):
        ask(client, x=images(1), **{"class": np.array([9])})
    with pytest.raises(InferenceServerException, match="NaN"):
        ask(client, x=images(1) * np.float32(np.nan))
    with pytest.raises(InferenceServerException, match="not a NumPy archive"):
        ask(client, ["x_hat"], bottleneck=np.array([b"PK"], object))


def test_too_large_a_request(server):
    status, found = server.fetch("v2/models/net/infer", bytes(100_001), **BINARY)
    assert (status, found["error"]) == (413, "the request is larger than 100,000 bytes")
    with pytest.raises(InferenceServerException, match="larger than max"):
        ask(server.client("grpc"), x=images(200))
    with pytest.raises(InferenceServerException, match="the server takes 8 at once"):
        ask(server.client("http"), x=images(9))
    with socket.create_connection(("127.0.0.1", server.ports["http"]), 10) as connection:  # of untold length
        connection.sendall(b"POST /v2/models/net/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n")
        connection.sendall(b"Content-Type: application/octet-stream\r\n\r\n")
        connection.sendall(b"18000\r\n" + bytes(0x18000) + b"\r\n2000\r\n" + bytes(0x2000) + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    ask(server.client("http"), x=images(1))


def test_a_request_that_does_not_arrive_is_given_up(server):
    with socket.create_connection(("127.0.0.1", server.ports["http"]), 10) as connection:
        connection.sendall(b"POST /v2/models/net/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 800\r\n\r\n{")
        start = time.monotonic()
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
        assert 2 < time.monotonic() - start < 9


def test_connections_that_send_nothing_are_cut(server):
    address = ("127.0.0.1", server.ports["http"])
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(address, 20)) for _ in range(5)]
        for connection in idle[1:]:
            connection.sendall(b"POST /v2/mod")
        start = time.monotonic()
        for connection in idle:
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        assert 2 < time.monotonic() - start < 9


def test_a_client_of_grpc_outlives_its_connections(server):
    """Each ends after the time limit, and what did not arrive on it; a client makes another by itself."""
    client = server.client("grpc")
    for _ in range(8):
        ask(client, ["prob"], x=images(1))
        time.sleep(1)


def test_more_requests_at_once_than_it_takes_are_told_to_come_back(server):
    address = ("127.0.0.1", server.ports["http"])
    with contextlib.ExitStack() as stack:
        for _ in range(70):
            stack.enter_context(socket.create_connection(address, 10))
        time.sleep(0.5)
        assert server.fetch("v2/health/live")[0] == 503
    for _ in range(50):
        if (status := server.fetch("v2/health/live")[0]) == 200:
            break
        time.sleep(0.1)
    assert status == 200


def test_the_guides_client_gets_its_picture_and_then_other_classes(tmp_path, monkeypatch):
    guide = Path(__file__).parents[2] / "tools" / "guides" / "serve.md"
    marked = r"<!-- run by: tests/serving/test_kserve.py -->\n```\w+\n(.*?)```"
    command, code = re.findall(marked, guide.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    zoo.sample("chelsea").save("cat.jpg")
    _, _, network, *options = command.split()
    with served(Path(network), *options, log=tmp_path) as server:
        here = code.replace("127.0.0.1:8080", f"127.0.0.1:{server.ports['http']}")
        names: dict[str, Any] = {}
        exec(compile(here, guide.name, "exec"), names)
    assert names["found"].as_numpy("label").tolist() == [b"Egyptian cat"]
    assert Image.open(io.BytesIO(Path("explained.png").read_bytes())).size == (227, 227)
    assert names["x_hat"].shape == (2, 3, 227, 227)
    assert (names["x_hat"][0] != names["x_hat"][1]).any()


# ----- Slow answers -----

SIDE = 800


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that takes seconds for a large picture."""
    path = tmp_path_factory.mktemp("slow")
    rng = np.random.default_rng(0)
    weights = {"w0": networks.he(rng, 64, 3, 5, 5)} | {
        f"w{i}": networks.he(rng, 64, 64, 5, 5) for i in (1, 2, 3, 4)
    }
    nodes = []
    for i in range(5):
        source = "x" if i == 0 else f"relu{i - 1}"
        nodes += [networks.node("Conv", f"{source} w{i}", f"conv{i}", pads=[2] * 4)]
        nodes += [networks.node("Relu", f"conv{i}", f"relu{i}")]
    nodes += [networks.node("GlobalAveragePool", "relu4", "gap"), networks.node("Flatten", "gap", "logits")]
    net = networks.model(nodes, ["N", 3, "H", "W"], weights)
    onnx.checker.check_model(net)
    revgraph.compile(net, variant="desalinet").save(path)
    return path


def large() -> np.ndarray:
    return np.ones((1, 3, SIDE, SIDE), np.float32)


def in_the_background(server: Server, protocol: str) -> "concurrent.futures.Future[Any]":
    """A request that takes seconds, under way."""
    future = concurrent.futures.Future[Any]()

    def send() -> None:
        try:
            module = CLIENTS[protocol]
            options = {"network_timeout": 300.0} if protocol == "http" else {}
            address = f"127.0.0.1:{server.ports[protocol]}"
            client = module.InferenceServerClient(address, **options)
            future.set_result(ask(client, ["logits"], x=large()).as_numpy("logits"))
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=send, daemon=True).start()
    time.sleep(1.0)
    return future


@pytest.mark.parametrize("protocol", CLIENTS)
def test_an_answer_that_takes_too_long_is_not_waited_for(slow, protocol):
    with served(slow, "--time-limit", "1") as server:
        with pytest.raises(InferenceServerException, match="no answer within 1 seconds"):
            in_the_background(server, protocol).result(60)
        _, metrics = server.fetch("metrics")
        assert re.search(r'requests_total\{.*outcome="late"\} 1\.0', metrics)


@pytest.mark.parametrize("protocol", CLIENTS)
def test_killed_in_mid_request_it_starts_again_at_the_same_place(slow, protocol):
    with served(slow) as server:
        request = in_the_background(server, protocol)
        assert not request.done()
        server.stop(signal.SIGKILL)
        with pytest.raises((InferenceServerException, HTTPConnectionClosed, OSError)):
            request.result(60)
        ports = [
            option for name in ("http", "grpc") for option in (f"--{name}-port", str(server.ports[name]))
        ]
    again = Server(slow, *ports)
    assert again.ports == server.ports
    small = np.ones((1, 3, 20, 20), np.float32)
    assert ask(again.client(protocol), x=small).as_numpy("x_hat").shape == small.shape
    assert again.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("protocol", CLIENTS)
def test_asked_to_stop_it_answers_what_runs(slow, protocol, number):
    with served(slow) as server:
        request = in_the_background(server, protocol)
        assert not request.done()
        assert server.stop(number) == 0
        assert request.result(60).shape == (1, 64)
        assert "Traceback" not in (slow / "log").read_text()


def test_a_network_that_takes_no_pictures_takes_tensors(tmp_path):
    weights = {"w": np.eye(4, dtype=np.float32)[..., None, None]}
    net = networks.model([networks.node("Conv", "x w", "y")], ["N", 4, 1, 1], weights)
    revgraph.compile(net, variant="salinet").save(tmp_path)
    with served(tmp_path) as server:
        x = np.ones((1, 4, 1, 1), np.float32)
        found = ask(server.client("grpc"), x=x, **{"class": np.array([2])}).as_numpy("x_hat")
        np.testing.assert_array_equal(found.ravel(), [0, 0, 1, 0])
        with pytest.raises(InferenceServerException, match="unknown input 'picture'"):
            ask(server.client("grpc"), picture=np.array([png()], object))
    assert (
        "note: tensors are taken alone, no pictures: cannot feed pictures" in (tmp_path / "log").read_text()
    )


def test_a_port_in_use_is_one_line(slow, server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, shared = str(taken.getsockname()[1]), str(server.ports["grpc"])
        for options in (
            ["--http-port", port],
            ["--http-port", "0", "--grpc-port", port],
            ["--http-port", "0", "--grpc-port", shared],
        ):
            command = [sys.executable, "-m", "revgraph", "serve", str(slow), *options]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 1
            assert done.stderr.splitlines()[-1].startswith(
                f"revgraph: error: cannot listen on 127.0.0.1:{options[-1]}"
            )


def test_the_container_runs_by_its_own_command(tmp_path):
    onnx.save(networks.cnn(), tmp_path / "net.onnx")
    package = [sys.executable, "-m", "revgraph", "package", str(tmp_path / "net.onnx"), "--for", "kserve"]
    subprocess.run([*package, "-o", str(tmp_path / "served")], check=True, capture_output=True)
    lines = (tmp_path / "served" / "Dockerfile").read_text().splitlines()
    command = json.loads(lines[-1].removeprefix("CMD "))
    ports = ["--http-port", "0", "--grpc-port", "0"]  # the last ones count
    process = subprocess.Popen(
        [sys.executable, "-m", *command, *ports],
        cwd=tmp_path / "served",
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(revgraph.__file__).parents[1])},
    )
    assert process.stdout
    assert process.stdout.readline().startswith("http://0.0.0.0:")
    process.terminate()
    assert process.wait(60) == 0
    process.stdout.close()
    path = str(tmp_path / "served" / "inferenceservice.json")
    done = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, timeout=60)
    assert done.stdout == "net:latest\n", done.stderr


READ = """
import json, sys, kubernetes.client as k8s
from kserve import V1beta1InferenceService, V1beta1InferenceServiceSpec, V1beta1PredictorSpec
service = json.load(open(sys.argv[1]))
predictor = service["spec"]["predictor"]
for kind, part in (
    (V1beta1InferenceService, service),
    (V1beta1InferenceServiceSpec, service["spec"]),
    (V1beta1PredictorSpec, predictor),
):
    assert part.keys() <= set(kind.attribute_map.values()), part
(container,) = predictor["containers"]
client = k8s.ApiClient()
for kind, part in (("V1Container", container), ("V1ObjectMeta", service["metadata"])):
    read = client.deserialize(json.dumps(part), kind, "application/json")
    assert client.sanitize_for_serialization(read) == part
print(container["image"])
"""
