"""All contenders of one network in one process, round by round: A, B, C, A, B, C, ..."""

import gc
import statistics
import time
from pathlib import Path

import numpy as np
import oracle
from contenders import PLAIN, Array, Call, Contender, contenders
from jobs import Job, one_line, serve

WARM_UP = 2
"""Calls of each contender that are not counted."""


def work(job: Job) -> Job:
    """Open, check and time; the rows of the table."""
    _limit_torch(job)
    progress, skipped = Path(job["progress"]), job["skipped"]
    rows, calls, several = list[Job](), dict[int, Call](), list[int]()
    for contender in contenders(job):
        row: Job = {"contender": contender.name, "target": contender.target, "failure": ""}
        rows.append(row)
        key = f"{contender.name}|{contender.target}"
        if key in skipped:
            row["failure"] = skipped[key]
            continue
        progress.write_text(key)
        try:
            call = contender.open(job)
            x_hat = [call() for _ in range(WARM_UP)][-1]
            row |= check(job, contender, x_hat)
        except Exception as error:
            row["failure"] = one_line(error)
            continue
        calls[len(rows) - 1] = call
        if contender.projections:
            several.append(len(rows) - 1)
    progress.write_text("")
    # Sixteen projections take as long as sixteen rounds of the others, so they are timed apart.
    first = [0] if rows[0]["contender"] == PLAIN and 0 in calls else []
    for chosen in ([i for i in calls if i not in several], [*first, *several]):
        times = interleaved([calls[i] for i in chosen], job["reps"], job["budget"])
        for i, seconds in zip(chosen, times, strict=True):
            if "rounds" not in rows[i]:
                rows[i] |= figures(seconds, times[0] if first else None)
    return {"rows": rows}


def _limit_torch(job: Job) -> None:
    if job["peers"]:
        import torch

        torch.set_num_threads(job["threads"])


def interleaved(calls: list[Call], reps: int, budget: float) -> list[list[float]]:
    """The seconds of each call in each round; at least three rounds, and no new one after the budget."""
    times: list[list[float]] = [[] for _ in calls]
    gc.collect()
    gc.disable()
    began = time.perf_counter()
    for done in range(reps):
        if done >= min(3, reps) and time.perf_counter() - began > budget:
            break
        for call, seconds in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    gc.enable()
    return times


def figures(times: list[float], plain: list[float] | None) -> Job:
    found: Job = {
        "rounds": len(times),
        "median_ms": 1e3 * statistics.median(times),
        "min_ms": 1e3 * min(times),
    }
    if plain:
        found["ratio"] = statistics.median(a / b for a, b in zip(times, plain, strict=True))
        found["ratio_of_minima"] = min(times) / min(plain)
    return found


def check(job: Job, contender: Contender, x_hat: Array | None) -> Job:
    """The error against the float64 oracle: the first image's, or that of the last where it is worse."""
    if x_hat is None or not job["rows"]:
        return {}
    rows = [0] if contender.projections else job["rows"]
    lrn = contender.lrn if contender.lrn in job["lrn"] else "own"
    pairs = [(x_hat[row].astype(np.float64), np.load(oracle.path(job, lrn, row))[0]) for row in rows]
    return {
        "relative_error": max(float(norm(a - b) / norm(b)) if b.any() else norm(a) for a, b in pairs),
        "cosine": min(float((a * b).sum() / max(norm(a) * norm(b), 1e-300)) for a, b in pairs),
    }


def norm(values: Array) -> float:
    return float(np.sqrt((values * values).sum()))


if __name__ == "__main__":
    serve(work)
