"""Fuzz revgraph's readers of foreign files for a while, and say what came of it.

    python tools/fuzz/fuzz.py --seconds 600 --out fuzzed model-structure picture

Each target's corpus, findings and counts are kept in a folder of its own under --out, and the next run goes
on from there. A finding is an input and, beside it, a text that says what it did; `--replay FILE` runs one.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent


def fuzz(target: str, out: Path, seconds: float) -> None:
    """Keep one worker going for so long; each time that it is ended, keep what it was at."""
    out.mkdir(parents=True, exist_ok=True)
    end = time.time() + seconds
    while (left := end - time.time()) > 1:
        options = [f"-max_total_time={max(int(left), 1)}", "-print_final_stats=1"]
        command = [sys.executable, str(HERE / "worker.py"), target, str(out), "--", *options]
        environment = {"OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1", **os.environ}
        with (out / "log").open("ab") as log:
            ended = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False)
        if ended.returncode != 0:
            stamp = f"ended-{ended.returncode}-{time.time():.0f}"
            shutil.copy(out / "current", out / "found" / stamp)
            tail = (out / "log").read_bytes()[-6000:]
            (out / "found" / f"{stamp}.txt").write_bytes(tail)


def report(target: str, out: Path) -> str:
    """The row of a target: inputs run, how they came out, time, coverage, and what was found."""
    outcomes: dict[str, int] = {}
    wall = cpu = slowest = 0.0
    high = 0
    for path in out.glob("counts-*.json"):
        said = json.loads(path.read_text())
        wall, cpu = wall + said["wall_s"], cpu + said["cpu_s"]
        slowest, high = max(slowest, said["slowest_s"]), max(high, said["high_water_mib"])
        for outcome, count in said["outcomes"].items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    log = (out / "log").read_bytes()
    coverage = max((int(n) for n in re.findall(rb"cov: (\d+)", log)), default=0)
    corpus = sum(1 for _ in (out / "corpus").iterdir())
    found = sum(1 for path in (out / "found").glob("*.txt"))
    parts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    return (
        f"{target}: {sum(outcomes.values())} inputs ({parts}); {cpu / 60:.1f} min of processor, "
        f"{wall / 60:.1f} min in all; slowest {slowest} s, {high} MiB at most; {coverage} edges, "
        f"{corpus} in the corpus; {found} findings"
    )


def replay(target: str, file: Path) -> None:
    """Run one input as the fuzzer did."""
    from targets import TARGETS

    began = time.process_time()
    try:
        print(TARGETS[target].run(file.read_bytes()))
    except Exception:
        traceback.print_exc()
    print(f"{time.process_time() - began:.2f} s")


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("targets", nargs="+", help="as targets.py names them")
    parser.add_argument("--seconds", type=float, default=600, help="for each target")
    parser.add_argument("--out", type=Path, default=Path("fuzzed"))
    parser.add_argument("--replay", type=Path, help="run this input and stop")
    parser.add_argument("--report", action="store_true", help="say again what came of earlier runs, and stop")
    given = parser.parse_args()
    for target in given.targets:
        if given.replay:
            replay(target, given.replay)
            continue
        if not given.report:
            fuzz(target, given.out / target, given.seconds)
        print(report(target, given.out / target), flush=True)


if __name__ == "__main__":
    main()
