"""Asks a real Triton server for explanations, and compares them with onnxruntime's here. See README.md."""

import argparse
import contextlib
import functools
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tritonclient.grpc as triton
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

TOLERANCE = 1e-4
"""Of x_hat, relative to its largest element: sums of float32 in another order, on a GPU of other kernels."""


def main() -> int:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("models", type=Path, help="what revgraph package --for triton wrote")
    made.add_argument(
        "--image", help="start this image of Triton's in Docker; without it a server must be running"
    )
    made.add_argument("--gpus", action="store_true", help="give it the GPUs")
    made.add_argument("--url", default="localhost:8001", help="of its gRPC port")
    made.add_argument("--wait", type=float, default=120, help="seconds until it must be ready")
    chosen = made.parse_args()
    names = sorted(path.parent.name for path in chosen.models.glob("*/config.pbtxt"))
    if not names:
        raise SystemExit(f"no models in '{chosen.models}': revgraph package --for triton -o writes some")
    with running(chosen):
        client = triton.InferenceServerClient(chosen.url)
        failed = 0
        for name in names:
            wait(client, name, chosen.wait)
            error = compared(client, chosen.models, name)
            right = error <= TOLERANCE  # which what is no number is not
            failed += not right
            print(f"{name}  {error:.1e}  {'right' if right else 'WRONG'}", flush=True)
    return int(failed > 0)


@contextlib.contextmanager
def running(chosen: argparse.Namespace) -> Iterator[None]:
    """The server in Docker, if one is to be started; its log is printed if anything goes wrong."""
    if not chosen.image:
        yield
        return
    mounted = f"{chosen.models.resolve()}:/models:ro"
    gpus = ["--gpus", "all"] if chosen.gpus else []
    command = ["docker", "run", "--rm", "-d", *gpus, "-p", "8001:8001", "-v", mounted, chosen.image]
    server = subprocess.check_output(
        [*command, "tritonserver", "--model-repository=/models"], text=True
    ).strip()
    try:
        yield
    except BaseException:
        subprocess.run(["docker", "logs", server], check=False)
        raise
    finally:
        subprocess.run(["docker", "stop", server], check=False, stdout=subprocess.DEVNULL)


def wait(client: Any, name: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(InferenceServerException, OSError):
            if client.is_model_ready(name):
                return
        if time.monotonic() > end:
            raise SystemExit(f"'{name}' is not ready after {seconds:g} seconds")
        time.sleep(0.5)


def compared(client: Any, models: Path, name: str) -> float:
    """The largest relative error of any output, over requests that Triton may join into batches."""
    config = client.get_model_config(name).config
    batched = config.max_batch_size > 0
    requests = [random_inputs(config, batched, seed) for seed in range(8)]
    with ThreadPoolExecutor(len(requests)) as pool:
        answers = list(pool.map(lambda inputs: infer(client, config, inputs), requests))
    errors = []
    for inputs, answer in zip(requests, answers, strict=True):
        for output, expected in run(models, config, inputs).items():
            scale = max(float(np.abs(expected).max()), 1e-6)
            found = answer[output].reshape(expected.shape)
            errors.append(float(np.abs(found.astype(np.float64) - expected).max()) / scale)
    return float(np.max(errors))  # and if one is no number, neither is this


def random_inputs(config: Any, batched: bool, seed: int) -> dict[str, np.ndarray]:
    """One picture's; of masks and switches what any could be."""
    rng = np.random.default_rng(seed)
    inputs = {}
    for declared in config.input:
        shape = [1] * batched + [max(dim, 1) for dim in declared.dims]
        dtype = np.dtype(triton_to_np_dtype(_kind(declared)))
        values = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        inputs[declared.name] = values.astype(dtype)
    return inputs


def infer(client: Any, config: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    sent = []
    for declared in config.input:
        values = inputs[declared.name]
        sent.append(triton.InferInput(declared.name, list(values.shape), _kind(declared)))
        sent[-1].set_data_from_numpy(values)
    answer = client.infer(config.name, sent)
    return {declared.name: answer.as_numpy(declared.name) for declared in config.output}


def _kind(declared: Any) -> str:
    return model_config_pb2.DataType.Name(declared.data_type).removeprefix("TYPE_")


def run(models: Path, config: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same by onnxruntime, in this process."""
    names = [declared.name for declared in config.output]
    if config.platform != "ensemble":
        return session_run(models / config.name / "1" / "model.onnx", inputs, names)
    known = dict(inputs)
    for step in config.ensemble_scheduling.step:
        feeds = {key: known[value] for key, value in step.input_map.items()}
        found = session_run(models / step.model_name / "1" / "model.onnx", feeds, list(step.output_map))
        known |= {step.output_map[key]: value for key, value in found.items()}
    return {name: known[name] for name in names}


def session_run(path: Path, inputs: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    session = opened(path)
    ranks = {value.name: len(value.shape) for value in session.get_inputs()}
    feeds = {key: value.reshape(value.shape[: ranks[key]]) for key, value in inputs.items()}
    return dict(zip(names, session.run(names, feeds), strict=True))


@functools.cache
def opened(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path)


if __name__ == "__main__":
    sys.exit(main())
