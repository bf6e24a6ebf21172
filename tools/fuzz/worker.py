"""One fuzzer: atheris on one target, until it is stopped. `fuzz.py` starts it, and starts it again.

What Python raises is noted once for each place and the fuzzer goes on. What ends the process (a signal, a
hang, memory) leaves the input in `current`.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["revgraph", "onnx_graphsurgeon", "PIL", "tomllib", "numpy.lib"]):
    from targets import TARGETS, Target, check_line

    from revgraph.errors import RevgraphError

SECONDS = 10.0
"""Most processor time for one input."""

GROWTH = 2**30
"""Most bytes that the process may grow for one input."""


class Watch:
    """Runs inputs one by one, and notes what came of them."""

    def __init__(self, target: Target, out: Path) -> None:
        self._target, self._out = target, out
        self._begun, self._noted = time.time(), 0.0
        self._counts: dict[str, int] = {}
        self._slowest = 0.0

    def __call__(self, data: bytes) -> None:
        (self._out / "current").write_bytes(data)
        cpu, high = time.process_time(), _high_water()
        with contextlib.redirect_stdout(io.StringIO()):
            outcome = self._outcome(data)
        cpu, growth = time.process_time() - cpu, _high_water() - high
        if cpu > SECONDS:
            self._find(data, f"slow-{outcome}", f"{cpu:.1f} s of processor time")
        if growth > GROWTH:
            self._find(data, f"large-{outcome}", f"the process grew by {growth / 2**20:.0f} MiB")
        self._slowest = max(self._slowest, cpu)
        self._counts[outcome] = self._counts.get(outcome, 0) + 1
        if time.time() - self._noted > 5:
            self.note()

    def _outcome(self, data: bytes) -> str:
        try:
            try:
                return self._target.run(data)
            except RevgraphError as error:
                check_line(error)
                return "refused"
        except Exception as error:  # a bug
            own = [f for f in traceback.extract_tb(error.__traceback__) if "revgraph" in f.filename]
            place = f"{Path(own[-1].filename).stem}:{own[-1].name}:{own[-1].lineno}" if own else ""
            self._find(data, f"{type(error).__name__}-{place}", traceback.format_exc(limit=-25))
            return "bug"

    def _find(self, data: bytes, signature: str, text: str) -> None:
        """Keep the first input of its kind, and a shorter one should it come."""
        name = "".join(c if c.isalnum() or c in "-_:" else "_" for c in signature)[:120]
        path = self._out / "found" / name
        if not path.exists() or path.stat().st_size > len(data):
            path.write_bytes(data)
            path.with_name(f"{name}.txt").write_text(text, errors="backslashreplace")

    def note(self) -> None:
        self._noted = time.time()
        said = {
            "wall_s": round(self._noted - self._begun, 1),
            "cpu_s": round(time.process_time(), 1),
            "slowest_s": round(self._slowest, 2),
            "high_water_mib": _high_water() >> 20,
            "outcomes": self._counts,
        }
        (self._out / f"counts-{os.getpid()}.json").write_text(json.dumps(said))


def _high_water() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _bound_memory() -> None:
    """What is asked for beyond the limit raises MemoryError rather than taking the machine's."""
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 3 * GROWTH, resource.RLIM_INFINITY))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("out", type=Path)
    parser.add_argument("options", nargs="*", help="of libFuzzer: -max_total_time=60")
    given = parser.parse_args()
    target = TARGETS[given.target]
    corpus = given.out / "corpus"
    for folder in (corpus, given.out / "found"):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        if len(seed) <= target.largest:
            (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    warnings.simplefilter("ignore")
    _bound_memory()
    watch = Watch(target, given.out)

    def mutate(data: bytes, largest: int, seed: int) -> bytes:
        assert target.mutate is not None
        try:
            changed = target.mutate(random.Random(seed), data)
        except Exception:  # a mutation's own trouble with what others left
            traceback.print_exc(limit=-3)
            return data
        return changed if len(changed) <= largest else data

    options = [f"-max_len={target.largest}", f"-artifact_prefix={given.out}/found/"]
    options += ["-rss_limit_mb=0", "-timeout=120"]
    custom = {"custom_mutator": mutate} if target.mutate else {}
    atheris.Setup([sys.argv[0], *options, *given.options, str(corpus)], watch, **custom)
    try:
        atheris.Fuzz()
    finally:
        watch.note()


if __name__ == "__main__":
    main()
