"""How the cost grows with picture size, batch and depth. See README.md beside this file."""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from bench import common, draw, settings_of, show, write, write_machine
from contenders import PLAIN
from jobs import Job
from measure import measure

COLUMNS = (
    *("axis", "value", "network", "size", "batch", "variant", "target", "plain_ms", "fused_ms", "ratio"),
    *("pair_ms", "taps_ms", "relative_error", "compile_seconds", "peak_mib", "run_mib", "plain_run_mib"),
    *("bottleneck_bytes", "model_bytes", "fused_bytes", "fused_nodes", "failure"),
)
"""The columns of growth.csv."""


def main(arguments: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--network", default="light_squeezenet", help="for sizes and batches")
    made.add_argument("--sizes", nargs="*", type=int, default=[64, 112, 224, 336, 448])
    made.add_argument("--batches", nargs="*", type=int, default=[1, 2, 4, 8, 16])
    made.add_argument("--depths", nargs="*", type=int, default=[4, 8, 16, 32, 64])
    common(made)
    chosen = made.parse_args(arguments)
    settings = replace(settings_of(chosen), peers=False)
    chosen.output.mkdir(parents=True, exist_ok=True)
    write_machine(chosen.output, settings)
    steps = [
        *(("size", size, chosen.network, 1, size) for size in chosen.sizes),
        *(("batch", batch, chosen.network, batch, 224) for batch in chosen.batches),
        *(("depth", depth, f"chain-{depth}", 1, 224) for depth in chosen.depths),
    ]
    rows = list[Job]()
    for axis, value, network, batch, size in steps:
        times, compiles = measure(network, batch, size, settings)
        show(f"{axis} {value}: {network}", times)
        rows += [{"axis": axis, "value": value} | row for row in joined(times, compiles)]
        write(chosen.output / "growth.csv", COLUMNS, rows)
    draw(chosen.output)


def joined(times: Sequence[Job], compiles: Sequence[Job]) -> list[Job]:
    """One row per target, of what was measured of a network."""
    found = {(row.get("contender"), row.get("target")): row for row in times}
    rows = []
    for compiled in compiles or times:
        target = compiled.get("target", "")
        fused = found.get(("revgraph, fused", target), {})
        rows.append(
            compiled
            | {
                "plain_ms": found.get((PLAIN, ""), {}).get("median_ms"),
                "fused_ms": fused.get("median_ms"),
                "ratio": fused.get("ratio"),
                "pair_ms": found.get(("revgraph, pair", target), {}).get("median_ms"),
                "taps_ms": found.get(("revgraph, forward with taps", target), {}).get("median_ms"),
                "relative_error": fused.get("relative_error"),
                "compile_seconds": compiled.get("seconds"),
                "failure": compiled.get("failure") or fused.get("failure", ""),
            }
        )
    return rows


if __name__ == "__main__":
    main()
