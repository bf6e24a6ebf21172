"""On a machine with a GPU: run the tests marked gpu, then time revgraph beside its peers. See README.md."""

import argparse
import csv
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "bench"))  # whose networks these are

# ruff: noqa: E402

import floor
import networks
import numpy as np
import onnx
import timed
from jobs import one_line
from machine import machine
from tabulate import tabulate

from revgraph.compiler import PRECISIONS, compile
from revgraph.variants import VARIANTS

COLUMNS = (
    *("device", "network", "variant", "batch", "precision", "tf32", "contender"),
    *("median_ms", "min_ms", "ratio", "relative_error", "floor_ms", "rounds", "failure"),
)
SHOWN = ("contender", "median_ms", "min_ms", "ratio", "relative_error", "failure")

WARM_UP = 4
"""Calls before the first that is timed: a shape is captured on its second."""


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = parser().parse_args(arguments)
    device = device_name(chosen.device)
    folder = chosen.output / re.sub(r"\W+", "-", device).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    if chosen.tests:
        test(folder, chosen.device)
    (folder / "machine.json").write_text(json.dumps(machine() | {"device": device}, indent=2) + "\n")
    rows: list[dict[str, Any]] = []
    for precision in chosen.precisions:
        peak = floor.measured_peak(chosen.device, precision == "fp16")
        if peak is not None:
            print(f"{precision}: {peak.flops / 1e12:.1f} TFLOP/s, {peak.bandwidth / 1e9:.0f} GB/s")
        for network in chosen.networks:
            for batch in chosen.batch:
                found = measure(network, batch, precision, chosen, peak)
                rows += [{"device": device, "tf32": "off"} | row for row in found]
                print(f"\n{network}, batch {batch}, {precision}, {chosen.variant}")
                print(tabulate([[row.get(key) for key in SHOWN] for row in found], SHOWN, floatfmt=".3g"))
                sys.stdout.flush()
                write(folder / "results.csv", rows)
    print("\nGoals")
    print(tabulate(goals(rows), ["goal", "geometric mean", "worst", "where"], floatfmt=".2f"))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--networks", nargs="+", default=list(networks.TORCH), metavar="NAME")
    made.add_argument("--batch", nargs="+", type=int, default=[1, 64], metavar="N")
    made.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    made.add_argument("--variant", default="salinet", choices=VARIANTS)
    made.add_argument("--device", default="cuda", help='"cpu" tries the script itself')
    made.add_argument("--rounds", type=int, default=15)
    made.add_argument("--tests", action=argparse.BooleanOptionalAction, default=True)
    made.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    made.add_argument("-o", "--output", type=Path, default=HERE / "results")
    return made


def device_name(device: str) -> str:
    """What NVIDIA calls it, or the processor."""
    if device == "cpu":
        return "cpu"
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", f"--id={device[5:] or 0}"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def test(folder: Path, device: str) -> None:
    """Their report is kept; the benchmark follows whatever it says."""
    root = HERE.parents[1]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu"]
    environment = os.environ | {"REVGRAPH_GPU": device}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    (folder / "tests.txt").write_text(done.stdout.replace(f"{root}/", ""), encoding="utf-8")
    print(done.stdout.strip().rpartition("\n")[2])


def measure(
    network: str, batch: int, precision: str, chosen: argparse.Namespace, peak: floor.Peak | None
) -> list[dict[str, Any]]:
    """A row for each contender, all timed in turn, round by round."""
    about = {"network": network, "batch": batch, "precision": precision, "variant": chosen.variant}
    try:
        work = prepare(network, batch, precision, chosen)
        whole = timed.expected(work)
        least = None if peak is None else floor.floor_ms(work.model, peak, precision == "fp16")
    except Exception as error:
        return [about | {"contender": "all", "failure": one_line(error)}]
    calls: dict[str, timed.Call] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, opened in timed.contenders(work, chosen.peers):
        rows[name] = about | {"contender": name, "floor_ms": least}
        try:
            call = opened(work)
            for _ in range(WARM_UP):
                x_hat = call()
            if x_hat is not None:
                rows[name]["relative_error"] = floor.relative_error(on_host(x_hat), whole)
            calls[name] = call
        except Exception as error:  # a peer that does not run is a row that says so
            rows[name]["failure"] = one_line(error)
    for name, seconds in in_turn(calls, chosen.rounds).items():
        rows[name] |= {
            "median_ms": 1e3 * statistics.median(seconds),
            "min_ms": 1e3 * min(seconds),
            "rounds": chosen.rounds,
        }
    base = rows[timed.PLAIN].get("median_ms")
    for row in rows.values():
        if base and "median_ms" in row:
            row["ratio"] = row["median_ms"] / base
    calls.clear()
    gc.collect()
    return list(rows.values())


def prepare(network: str, batch: int, precision: str, chosen: argparse.Namespace) -> timed.Work:
    size, file = networks.default_size(network), chosen.output / "model.onnx"
    try:
        networks.build(network, batch, size, file)
        model = onnx.load(file)
    finally:
        file.unlink(missing_ok=True)
    x = networks.pictures(batch, size)
    shape = [
        dim.dim_value
        for dim in compile(model, variant="salinet").reversed.graph.input[0].type.tensor_type.shape.dim
    ][1:]
    p = np.zeros((batch, int(np.prod(shape))), np.float32)
    p[np.arange(batch), networks.neurons(batch, p.shape[1])] = 1
    return timed.Work(network, model, chosen.variant, precision, chosen.device, x, p.reshape(batch, *shape))


def in_turn(calls: dict[str, timed.Call], rounds: int) -> dict[str, list[float]]:
    """Seconds of one call, as the mean of some within a round."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times, start = 0, time.perf_counter()
            while times < 20 and time.perf_counter() - start < 0.02:
                call()
                times += 1
            seconds[name].append((time.perf_counter() - start) / times)
    return seconds


def on_host(x_hat: Any) -> np.ndarray:
    found = (
        x_hat.numpy()
        if hasattr(x_hat, "element_type") and callable(x_hat.element_type)
        else x_hat.cpu().numpy()
    )
    return np.asarray(found, np.float64)


GOALS = (
    ("fused over plain forward, at most 2.2", timed.FUSED, timed.PLAIN, None, max),
    ("Captum over fused at batch 1, at least 5", timed.CAPTUMS, timed.FUSED, 1, min),
    ("Captum over fused at batch 64, at least 1.5", timed.CAPTUMS, timed.FUSED, 64, min),
    ("torch.compile over fused, at least 1", timed.COMPILED, timed.FUSED, None, min),
)


def goals(rows: Sequence[dict[str, Any]]) -> list[list[object]]:
    table = []
    for what, above, below, batch, worst in GOALS:
        found = {}
        for row in rows:
            key = (row["network"], row["batch"], row["precision"])
            if "median_ms" in row and row["contender"] in (above, below) and batch in (None, row["batch"]):
                found.setdefault(key, {})[row["contender"]] = row["median_ms"]
        ratios = {key: both[above] / both[below] for key, both in found.items() if len(both) == 2}
        if ratios:
            where = worst(ratios, key=lambda key: ratios[key])
            mean = statistics.geometric_mean(ratios.values())
            table.append([what, mean, ratios[where], ", ".join(map(str, where))])
    return table


def write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(
            {key: f"{v:.5g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
