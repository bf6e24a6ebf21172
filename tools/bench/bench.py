"""Print the whole table: how fast, how right, how large. See README.md beside this file."""

import argparse
import csv
import importlib.util
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from jobs import Job
from machine import machine
from measure import COMPILES, TIMES, Settings, measure
from networks import DEFAULT, NINE, default_size
from tabulate import tabulate

from revgraph.lower.targets import TARGETS
from revgraph.variants import VARIANTS

HERE = Path(__file__).parent

SHOWN = {
    "contender": "contender",
    "target": "target",
    "median_ms": "median ms",
    "min_ms": "min ms",
    "ratio": "ratio",
    "ratio_of_minima": "of minima",
    "relative_error": "rel. error",
    "failure": "failure",
}
"""The columns that are printed of results.csv, and what they are called there."""


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = parser().parse_args(arguments)
    settings = settings_of(chosen)
    times, compiles = list[Job](), list[Job]()
    chosen.output.mkdir(parents=True, exist_ok=True)
    write_machine(chosen.output, settings)
    for network in chosen.networks:
        for batch in chosen.batch:
            size = chosen.size or default_size(network)
            rows, about = measure(network, batch, size, settings)
            times += rows
            compiles += about
            show(f"{network}, batch {batch}, {settings.variant}", rows)
            write(chosen.output / "results.csv", TIMES, times)
            write(chosen.output / "compile.csv", COMPILES, compiles)
    print("\nCompilation")
    wanted = [key for key in COMPILES if key not in ("variant", "size", "imported_mib")]
    print(tabulate([[row.get(key) for key in wanted] for row in compiles], wanted, floatfmt=".3g"))
    show_means(times)
    draw(chosen.output)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--networks", nargs="+", default=list(DEFAULT), metavar="NAME")
    made.add_argument("--batch", nargs="+", type=int, default=[1, 8], metavar="N")
    made.add_argument("--size", type=int, help="of the pictures; by default the network's own")
    common(made)
    return made


def common(made: argparse.ArgumentParser) -> None:
    """The arguments that growth.py has too."""
    made.add_argument("--targets", nargs="+", default=["portable", "cpu"], choices=TARGETS)
    made.add_argument("--variant", default="desalinet", choices=VARIANTS)
    made.add_argument("--reps", type=int, default=15, help="most rounds")
    made.add_argument("--budget", type=float, default=60, help="seconds of rounds per network and batch")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    made.add_argument("--check", action=argparse.BooleanOptionalAction, default=True)
    made.add_argument("--cache", type=Path, default=HERE.parents[1] / "build" / "bench")
    made.add_argument("-o", "--output", type=Path, default=HERE / "results")


def settings_of(chosen: argparse.Namespace) -> Settings:
    return Settings(
        variant=chosen.variant,
        targets=chosen.targets,
        peers=chosen.peers,
        reps=chosen.reps,
        budget=chosen.budget,
        threads=chosen.threads,
        cache=str(chosen.cache.resolve()),
        check=chosen.check,
    )


def write_machine(folder: Path, settings: Settings) -> None:
    about = machine() | {"threads": settings.threads, "most_rounds": settings.reps, "spinning": False}
    (folder / "machine.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def write(file: Path, columns: Sequence[str], rows: Sequence[Job]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, columns, restval="", extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows({key: _rounded(value) for key, value in row.items()} for row in rows)


def _rounded(value: object) -> object:
    return f"{value:.5g}" if isinstance(value, float) else value


def show(title: str, rows: Sequence[Job]) -> None:
    print(f"\n{title}")
    print(
        tabulate([[row.get(key, "") for key in SHOWN] for row in rows], list(SHOWN.values()), floatfmt=".3g")
    )
    sys.stdout.flush()


def means(rows: Sequence[Job]) -> list[list[object]]:
    """Geometric means of the ratios over those of the nine that were run, of contenders that ran on all."""
    nine = [row for row in rows if row["network"] in NINE]
    wanted = {row["network"] for row in nine}
    ratios: dict[tuple[str, str, int], list[tuple[float, float]]] = defaultdict(list)
    for row in nine:
        if row.get("ratio"):
            key = row["contender"], row["target"], row["batch"]
            ratios[key].append((row["ratio"], row["ratio_of_minima"]))
    return [
        [*key, len(found), *(statistics.geometric_mean(column) for column in zip(*found, strict=True))]
        for key, found in ratios.items()
        if len(found) == len(wanted)
    ]


def show_means(rows: Sequence[Job]) -> None:
    heads = ["contender", "target", "batch", "networks", "ratio", "of minima"]
    if found := means(rows):
        print("\nGeometric means over the architectures of the onnx package")
        print(tabulate(found, heads, floatfmt=".3g"))


def draw(folder: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        print("no plots: matplotlib is not installed", file=sys.stderr)
        return
    import plot

    plot.draw(folder)


if __name__ == "__main__":
    main()
