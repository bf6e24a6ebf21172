"""Pictures per second of `revgraph batch`, against the bare fused session on the same pictures ready made.

See README.md beside this file; it needs the extras batch and, for --engines ray, ray.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bench import write
from machine import machine
from tabulate import tabulate

import revgraph
from revgraph import neuron, parallel, recipe, runtime, zoo
from revgraph.dataset import pipeline, places, source
from revgraph.dataset.explaining import Asked, Explaining, Picture
from revgraph.dataset.output import Output, Share
from revgraph.explain import Explainer
from revgraph.feeding import Feeder
from revgraph.pair import Compiled

CONTENDERS = (
    "network",
    "what",
    "batch",
    "threads",
    "rounds",
    "pictures_per_second",
    "ratio",
    "largest_error",
)
STAGES = ("network", "stage", "ms_per_picture")
PROCESSES = ("network", "engine", "pictures", "seconds", "pictures_per_second", "peak_mb")

Runs = Callable[[], object]


def main(arguments: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("pictures", help="a folder of pictures, best of some hundred")
    made.add_argument("--model", default="squeezenet1_1", help="an ONNX file, or a network of revgraph's")
    made.add_argument("--recipe", help="how pictures are fed (default: the model's own)")
    made.add_argument("--most", type=int, default=128, help="pictures of a round")
    made.add_argument("--rounds", type=int, default=7, help="of all contenders in turn")
    made.add_argument(
        "--processes", nargs="*", type=int, default=[], help="whole commands on so many pictures"
    )
    made.add_argument("--engines", nargs="*", default=["local"], help="of the whole commands")
    made.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    chosen = made.parse_args(arguments)
    named = chosen.model in recipe.names()
    path = zoo.model_path(recipe.load(chosen.model)) if named else Path(chosen.model)
    compiled = revgraph.compile(path, variant="desalinet", target="cpu")
    fed = recipe.load(chosen.recipe or compiled.metadata.get("recipe") or chosen.model)
    pictures = source.listed(chosen.pictures)
    chosen.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        few = [pictures[i % len(pictures)] for i in range(chosen.most)]
        report(
            "datasets", CONTENDERS, compete(compiled, fed, few, Path(folder), chosen.rounds), chosen.output
        )
        report("datasets.stages", STAGES, stages(compiled, fed, few, Path(folder)), chosen.output)
        if chosen.processes:
            ran = processes(compiled.name, str(path), fed.name, pictures, Path(folder), chosen)
            report("datasets.processes", PROCESSES, ran, chosen.output)
    print(machine())


def report(name: str, columns: Sequence[str], rows: Sequence[dict[str, Any]], folder: Path) -> None:
    write(folder / f"{name}.csv", columns, rows)
    print(tabulate([[row.get(key) for key in columns] for row in rows], columns, floatfmt=".4g"), "\n")


class Bare:
    """The fused model on x that is there already, its session opened as onnxruntime's manual says."""

    def __init__(self, pair: Compiled, threads: int) -> None:
        fused = pair.light_fused("max")
        self.weights = runtime.ort_values(fused.weights)
        self.session = runtime.open_light(fused, self.weights, threads)
        self.name = pair.input

    def __call__(self, x: np.ndarray) -> None:
        self.session.run(None, {self.name: x})


def compete(
    pair: Compiled, fed: recipe.Recipe, pictures: Sequence[str], folder: Path, rounds: int
) -> list[dict[str, Any]]:
    feeder, cores = Feeder(pair, fed), parallel.cores()
    xs = [feeder.feed(places.read(path)) for path in pictures]
    contenders: list[tuple[str, int, int, Runs]] = []
    for batch, threads in ((1, cores), (8, cores), (1, 1), (8, 1)):
        bare = Bare(pair, threads)
        batches = [np.concatenate(xs[i : i + batch]) for i in range(0, len(xs), batch)]
        contenders.append(
            ("bare", batch, threads, lambda b=bare, x=batches, t=threads: at_once(b, x, cores // t))
        )
    explaining: dict[tuple[str, int], Explaining] = {}
    for maps, batch in (("none", 1), ("none", 8), ("png", 1), ("float16", 1)):
        made = Explaining(Asked(pair, fed, (neuron.parse("max"),), maps=maps), batch=batch)
        explaining[maps, batch] = made
        out = Output(str(folder / f"{maps}{batch}"), maps)
        shares = [Share(0, pictures)]
        contenders.append(
            (
                f"batch, maps {maps}",
                batch,
                1,
                lambda m=made, s=shares, o=out: sum(pipeline.explain(m, s, o, cores)),
            )
        )
    rates: dict[int, list[float]] = {i: [] for i in range(len(contenders))}
    for number in range(-1, rounds):  # the first warms up
        for i, (_, _, _, run) in enumerate(contenders):
            began = time.perf_counter()
            run()
            if number >= 0:
                rates[i].append(len(pictures) / (time.perf_counter() - began))
    usual = rates[1]
    error = largest_error(explaining["none", 1], Explainer(revgraph.Session(pair), fed), pictures[:16])
    return [
        {
            "network": pair.name,
            "what": what,
            "batch": batch,
            "threads": threads,
            "rounds": rounds,
            "pictures_per_second": round(median(rates[i]), 2),
            "ratio": round(median(a / b for a, b in zip(rates[i], usual, strict=True)), 3),
            "largest_error": None if what == "bare" else error,
        }
        for i, (what, batch, threads, _) in enumerate(contenders)
    ]


def at_once(run: Callable[[np.ndarray], None], batches: Sequence[np.ndarray], callers: int) -> None:
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(run, batches))


def largest_error(explaining: Explaining, explainer: Explainer, pictures: Sequence[str]) -> float:
    """Of the norms of x_hat, relative to those that `run` comes to."""
    errors = []
    for i, path in enumerate(pictures):
        (row,) = explaining.rows([Picture(i, path)])
        (found,) = explainer.explain(places.read(path), [neuron.parse("max")], np.random.default_rng(0))
        right = float(np.sqrt(np.square(found.x_hat, dtype=np.float64).sum()))
        errors.append(abs(row["x_hat_norm"] - right) / right if right else row["x_hat_norm"])
    return max(errors)


def stages(pair: Compiled, fed: recipe.Recipe, pictures: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """What a picture costs one core, stage by stage."""
    feeder, bare = Feeder(pair, fed), Bare(pair, 1)
    explaining = Explaining(Asked(pair, fed, (neuron.parse("max"),)))
    images = [places.read(path) for path in pictures]
    xs = [feeder.feed(image) for image in images]
    rows = explaining.rows([Picture(0, pictures[0])]) * len(pictures)
    output = Output(str(folder / "stages"), "none")

    def written() -> None:
        with output.part(0) as add:
            add(rows)

    work: dict[str, Runs] = {
        "decode": lambda: [places.read(path) for path in pictures],
        "feed": lambda: [feeder.feed(image) for image in images],
        "compute": lambda: [bare(x) for x in xs],
        "write": written,
        "all": lambda: [explaining.rows([Picture(i, path)]) for i, path in enumerate(pictures)],
    }
    found: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(4):
        for name, run in work.items():
            began = time.perf_counter()
            run()
            found[name].append(1000 * (time.perf_counter() - began) / len(pictures))
    return [
        {"network": pair.name, "stage": name, "ms_per_picture": round(median(times[1:]), 4)}
        for name, times in found.items()
    ]


def processes(
    name: str, model: str, fed: str, pictures: Sequence[str], folder: Path, chosen: argparse.Namespace
) -> list[dict[str, Any]]:
    """Whole commands, from start to end, and the most memory that they had (of Ray's, the first process)."""
    rows = []
    for count in chosen.processes:
        listing = folder / f"{count}.csv"
        listing.write_text(
            "path\n" + "".join(f"{os.path.abspath(pictures[i % len(pictures)])}\n" for i in range(count))
        )
        for engine in chosen.engines:
            out = folder / f"{engine}{count}"
            line = [
                sys.executable,
                "-m",
                "revgraph",
                "batch",
                str(listing),
                "--model",
                model,
                "--recipe",
                fed,
            ]
            began = time.perf_counter()
            command = [*line, "--engine", engine, "-q", "-o", str(out)]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
                peak = watched(process)
            seconds = time.perf_counter() - began
            assert process.returncode == 0
            rows.append(
                {
                    "network": name,
                    "engine": engine,
                    "pictures": count,
                    "seconds": round(seconds, 2),
                    "pictures_per_second": round(count / seconds, 2),
                    "peak_mb": peak,
                }
            )
            print(rows[-1], flush=True)
    return rows


def watched(process: "subprocess.Popen[bytes]") -> int:
    """The most memory that a process had until it ended, in MB, as Linux counts it."""
    peak = 0
    while process.poll() is None:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        peak = int(found[1]) // 1000 if found else peak
        time.sleep(0.1)
    return peak


if __name__ == "__main__":
    main()
