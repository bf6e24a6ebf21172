"""tools/triton asks a server that speaks Triton's protocol, and tells a right one from a wrong one."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pytest
from triton_rules import Server

from revgraph import cli

grpc: Any = pytest.importorskip("grpc")
service: Any = pytest.importorskip("tritonclient.grpc.service_pb2")
stubs: Any = pytest.importorskip("tritonclient.grpc.service_pb2_grpc")
utils: Any = pytest.importorskip("tritonclient.utils")

PROVE = Path(__file__).parents[2] / "tools" / "triton" / "prove.py"


class StandIn(stubs.GRPCInferenceServiceServicer):
    """Triton's protocol over its rules, for one repository."""

    def __init__(self, folder: Path, fault: float) -> None:
        self._server, self._fault = Server(folder), fault

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        return service.ModelReadyResponse(ready=request.name in self._server.configs)

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service.ModelConfigResponse(config=self._server.configs[request.name])

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        inputs = {}
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            kind = utils.triton_to_np_dtype(tensor.datatype)
            inputs[tensor.name] = np.frombuffer(raw, kind).reshape(tensor.shape)
        answer = service.ModelInferResponse(model_name=request.model_name)
        for name, found in self._server.infer(request.model_name, **inputs).items():
            if name == "x_hat":
                found = found * (1 + self._fault)
            kind = utils.np_to_triton_dtype(found.dtype)
            answer.outputs.add(name=name, datatype=kind, shape=found.shape)
            answer.raw_output_contents.append(np.ascontiguousarray(found).tobytes())
        return answer


@pytest.fixture
def models(tmp_path: Path) -> Path:
    onnx.save(networks.cnn(), tmp_path / "net.onnx")
    given = [str(tmp_path / "net.onnx"), "--for", "triton", "--choose", "class", "-q"]
    assert cli.main(["package", *given, "-o", str(tmp_path / "models")]) == 0
    return tmp_path / "models"


@pytest.fixture(params=[0.0, 0.01, float("nan")])
def served(request: pytest.FixtureRequest, models: Path) -> Iterator[tuple[float, str]]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    stubs.add_GRPCInferenceServiceServicer_to_server(StandIn(models, request.param), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield request.param, f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_every_model_is_asked_and_a_wrong_one_is_told(models: Path, served: tuple[float, str]) -> None:
    fault, url = served
    command = [sys.executable, str(PROVE), str(models), "--url", url, "--wait", "20"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    verdicts = {line.split()[0]: line.split()[-1] for line in ran.stdout.splitlines()}
    wrong = "WRONG" if fault else "right"
    assert verdicts == {
        "net.desalinet": wrong,
        "net.desalinet.class": wrong,
        "net.desalinet.forward": "right",
        "net.desalinet.reversed": wrong,
    }
    assert ran.returncode == (1 if fault else 0), ran.stderr


def test_a_server_that_is_not_there_is_told(models: Path) -> None:
    command = [sys.executable, str(PROVE), str(models), "--url", "127.0.0.1:9", "--wait", "0.1"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "'net.desalinet' is not ready after 0.1 seconds" in ran.stderr


def test_an_empty_repository_is_not_a_right_one(tmp_path: Path) -> None:
    command = [sys.executable, str(PROVE), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"no models in '{tmp_path}'")
