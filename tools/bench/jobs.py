"""Work done in processes of their own: a crash costs one row, and memory is that of the work alone."""

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = dict[str, Any]
"""What a process is asked for, or what it answers: plain JSON."""

HERE = Path(__file__).parent


def call(script: str, job: Job) -> Job:
    """Run a script of this folder on a job; where it fails the answer is {"error": one line}."""
    ran = subprocess.run(
        [sys.executable, str(HERE / script)],
        input=json.dumps(job),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | QUIET,
        check=False,
    )
    if ran.returncode:
        return {"error": f"the process ended with status {ran.returncode}", "died": True}
    return dict(json.loads(ran.stdout))


QUIET = {
    "ORT_DISABLE_TELEMETRY": "1",
    "CAPTUM_DISABLE_TELEMETRY": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # torch's threads do not spin either
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
}


def serve(work: Callable[[Job], Job]) -> None:
    """In such a script: answer the one job on standard input."""
    answer = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no part of the answer
    try:
        done = work(json.load(sys.stdin))
    except Exception as error:
        done = {"error": one_line(error)}
    with os.fdopen(answer, "w") as stream:
        json.dump(done, stream)


def one_line(error: BaseException) -> str:
    """The error's kind and the first line that says something, without folders of this machine."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0] if lines else ''}"
    return re.sub(r"(?:/[\w.+@-]+)+/([\w.+@-]+)", r"\1", text)[:200]


def peak_mib() -> float:
    """The most memory that this process has held.

    Linux hands `ru_maxrss` down from the process that started this one, so it is asked for VmHWM first.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
