"""Requests per second and latency of `revgraph serve`, against the same server running the plain model.

See README.md beside this file; it needs the extra serve and tritonclient.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bench import write
from machine import machine
from tabulate import tabulate

import revgraph
from revgraph import recipe, zoo
from revgraph.pair import Compiled

COLUMNS = (
    *("network", "protocol", "clients", "server", "wanted", "rounds", "requests_per_second", "ratio"),
    *("p50_ms", "p99_ms", "largest_error"),
)
OPTIONS = ("--http-port", "0", "--grpc-port", "0", "--batch", "8")


@dataclass(frozen=True)
class Contender:
    """A server, and what is asked of it."""

    server: str
    wanted: str


def main(arguments: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--model", default="squeezenet1_1", help="an ONNX file, or a network of revgraph's")
    made.add_argument("--clients", nargs="*", type=int, default=[1, 8], help="how many ask at once")
    made.add_argument("--protocols", nargs="*", default=["http", "grpc"])
    made.add_argument("--rounds", type=int, default=8, help="of all contenders in turn")
    made.add_argument("--requests", type=int, default=10, help="of each client in each round")
    made.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    chosen = made.parse_args(arguments)
    path = zoo.model_path(recipe.load(chosen.model)) if chosen.model in recipe.names() else Path(chosen.model)
    with tempfile.TemporaryDirectory() as folder:
        compiled = revgraph.compile(path, variant="desalinet", target="cpu")
        compiled.save(Path(folder, "revgraph"))
        plain = revgraph.compile(path, variant="identity-centre", target="cpu")
        assert not plain.taps, "the variant without a bottleneck leaves the forward graph as it is"
        plain.save(Path(folder, "plain"))
        rows = compete(compiled, Path(folder), chosen)
    chosen.output.mkdir(parents=True, exist_ok=True)
    write(chosen.output / "serving.csv", COLUMNS, rows)
    print(tabulate([[row[key] for key in COLUMNS] for row in rows], COLUMNS, floatfmt=".3g"))
    print(machine())


class Server:
    """A running `revgraph serve`."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "revgraph", "serve", str(folder), *OPTIONS]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        lines = [self.process.stdout.readline() for _ in ("http", "grpc")]
        self.ports = {
            name: line.split()[0].removeprefix("http://").split("/")[0]
            for name, line in zip(("http", "grpc"), lines, strict=True)
        }


def compete(compiled: Compiled, folder: Path, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    scores = compiled.at
    contenders = [
        Contender("plain", scores),
        *(Contender("revgraph", w) for w in (scores, "x_hat", "x_hat_png")),
    ]
    servers = {name: Server(folder / name) for name in ("plain", "revgraph")}
    try:
        session = revgraph.Session(compiled)
        shape = [n if isinstance(n, int) else 1 for n in session.x_shape]
        x = 50 * np.random.default_rng(0).standard_normal(shape).astype(session.x_dtype)
        trace = session.forward(x)
        p = (trace.y == trace.y.max()).astype(trace.y.dtype)
        right = {scores: trace.y, "x_hat": session.reverse(trace, p)}
        return [
            row
            for protocol in chosen.protocols
            for clients in chosen.clients
            for row in measured(compiled.name, contenders, servers, protocol, clients, x, right, chosen)
        ]
    finally:
        for server in servers.values():
            server.process.terminate()
            server.process.wait()


def measured(
    network: str,
    contenders: Sequence[Contender],
    servers: dict[str, Server],
    protocol: str,
    clients: int,
    x: np.ndarray,
    right: dict[str, np.ndarray],
    chosen: argparse.Namespace,
) -> list[dict[str, Any]]:
    """A row for each contender, of rounds in which each has its turn."""
    latencies = {contender: list[float]() for contender in contenders}
    rates = {contender: list[float]() for contender in contenders}
    errors = dict.fromkeys(contenders, 0.0)
    for number in range(-1, chosen.rounds):  # the first warms up
        for contender in contenders:
            address = servers[contender.server].ports[protocol]
            began = time.perf_counter()
            found, error = asked(
                protocol, address, network, x, contender.wanted, right, clients, chosen.requests
            )
            if number >= 0:
                rates[contender].append(len(found) / (time.perf_counter() - began))
                latencies[contender] += found
                errors[contender] = max(errors[contender], error)
    first = rates[contenders[0]]
    return [
        {
            "network": network,
            "protocol": protocol,
            "clients": clients,
            "server": contender.server,
            "wanted": contender.wanted,
            "rounds": chosen.rounds,
            "requests_per_second": round(median(rates[contender]), 2),
            "ratio": round(median(a / b for a, b in zip(rates[contender], first, strict=True)), 3),
            "p50_ms": round(1e3 * float(np.quantile(latencies[contender], 0.5)), 1),
            "p99_ms": round(1e3 * float(np.quantile(latencies[contender], 0.99)), 1),
            "largest_error": float(f"{errors[contender]:.1e}"),
        }
        for contender in contenders
    ]


def asked(
    protocol: str,
    address: str,
    network: str,
    x: np.ndarray,
    wanted: str,
    right: dict[str, np.ndarray],
    clients: int,
    requests: int,
) -> tuple[list[float], float]:
    """The seconds of every request of so many clients at once, and the last answers' largest error."""
    import tritonclient.grpc
    import tritonclient.http

    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[protocol]
    seconds, errors = list[float](), list[float]()

    def ask() -> None:
        client = module.InferenceServerClient(address)
        tensor = module.InferInput("x", list(x.shape), "FP32")
        tensor.set_data_from_numpy(x)
        outputs = [module.InferRequestedOutput(wanted)]
        for _ in range(requests):
            start = time.perf_counter()
            found = client.infer(network, [tensor], outputs=outputs)
            seconds.append(time.perf_counter() - start)
        if wanted in right:
            error = np.abs(found.as_numpy(wanted) - right[wanted]).max() / np.abs(right[wanted]).max()
            errors.append(float(error))
        client.close()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds, max(errors, default=0.0)


if __name__ == "__main__":
    main()
