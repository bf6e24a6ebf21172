"""All contenders of one network in one process, round by round: A, B, C, A, B, C, ..."""

import gc
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import oracle
from contenders import GROUPS, Array, Call, Contender, contenders, release
from jobs import Job, one_line, serve

WARM_UP = 2
"""Calls of each contender that are not counted."""

SLOW = 4
"""A contender one of whose calls takes more than the budget's fourth part has that one call."""


def work(job: Job) -> Job:
    """Open, check and time, group by group; the rows of the table."""
    _limit_torch(job)
    chosen = list(contenders(job))
    rows: dict[Contender, Job] = {
        contender: {"contender": contender.name, "target": contender.target, "failure": ""}
        for contender in chosen
    }
    for group in GROUPS:
        calls = dict[Contender, Call]()
        members = [contender for contender in chosen if group == contender.group]
        for contender in [chosen[0], *members] if members and group != chosen[0].group else members:
            call, found = opened(job, contender)
            if call:
                calls[contender] = call
            rows[contender] |= found
        times = interleaved(calls, job["reps"], job["budget"], Path(job["progress"]))
        for contender in members:
            measured = times.get(contender)
            if isinstance(measured, str):
                rows[contender]["failure"] = measured
            elif measured:
                plain = times.get(chosen[0])
                rows[contender] |= figures(measured, plain if isinstance(plain, list) else None)
        del calls
        release()
    return {"rows": list(rows.values())}


def opened(job: Job, contender: Contender) -> tuple[Call | None, Job]:
    """The call, warmed up, and how right it is; or no call, and the failure."""
    progress = Path(job["progress"])
    if contender.key in job["skipped"]:
        return None, {"failure": job["skipped"][contender.key]}
    progress.write_text(contender.key)  # for the process that finds this one dead
    try:
        call = contender.open(job)
        for _ in range(WARM_UP):
            start = time.perf_counter()
            x_hat = call()
            if time.perf_counter() - start > job["budget"] / SLOW:
                break
        return call, check(job, contender, x_hat)
    except Exception as error:
        return None, {"failure": one_line(error)}
    finally:
        progress.write_text("")


def _limit_torch(job: Job) -> None:
    if job["peers"]:
        import torch

        torch.set_num_threads(job["threads"])


def interleaved(
    calls: Mapping[Contender, Call], reps: int, budget: float, progress: Path
) -> dict[Contender, list[float] | str]:
    """The seconds of each call in each round, or its failure.

    There are at least three rounds, unless fewer are asked for, and no new one begins after the budget. What
    is `SLOW` takes part in the first only.
    """
    times: dict[Contender, list[float]] = {contender: [] for contender in calls}
    failures = dict[Contender, str]()
    gc.collect()
    gc.disable()
    began = time.perf_counter()
    for done in range(reps):
        if done >= 3 and time.perf_counter() - began > budget:
            break
        for contender, call in calls.items():
            if contender in failures or max(times[contender], default=0) > budget / SLOW:
                continue
            progress.write_text(contender.key)
            start = time.perf_counter()
            try:
                call()
            except Exception as error:
                failures[contender] = one_line(error)
            times[contender].append(time.perf_counter() - start)
    gc.enable()
    progress.write_text("")
    return times | failures


def figures(times: list[float], plain: list[float] | None) -> Job:
    found: Job = {
        "rounds": len(times),
        "median_ms": 1e3 * statistics.median(times),
        "min_ms": 1e3 * min(times),
    }
    if plain:
        found["ratio"] = statistics.median(a / b for a, b in zip(times, plain, strict=False))
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
