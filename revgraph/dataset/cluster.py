"""The same on many machines: Ray Data hands shares to actors, each of which runs the pipeline on its cores.

An actor reads its pictures and writes its rows itself, so that neither pixels nor maps cross between
processes, and nothing but actors wants a core.
"""

import logging
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from revgraph.dataset import pipeline
from revgraph.dataset.explaining import Asked, Explaining, Means
from revgraph.dataset.output import Output, Share
from revgraph.errors import RevgraphError, missing_extra

CORES = 8
"""Most of one actor: its threads share one interpreter, which is busy a while with each picture."""

SHARES = 8
"""Most that an actor is given at once: between some and the next its cores run idle one by one."""


class Actors(NamedTuple):
    """How many there are, and what each has of a machine."""

    number: int
    cpus: float
    gpus: float


def explain(asked: Asked, shares: Sequence[Share], output: Output, means: Means) -> Iterator[int]:
    """As `pipeline.explain`, by the cluster that RAY_ADDRESS names, or by one of this machine alone.

    Yields:
        How many pictures went by, again and again.

    Raises:
        RevgraphError: Ray is not installed, has no such device, or an actor cannot go on.
    """
    ray = _ray()
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(log_to_driver=False, logging_level="error", include_dashboard=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RevgraphError("cannot reach Ray", str(error), "check RAY_ADDRESS") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield from _explain(ray, asked, shares, output, means)
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = lines[-1] if lines else type(error).__name__
        raise RevgraphError("Ray could not finish", why, "start it again: it goes on") from error
    finally:
        if started:
            ray.shutdown()


def _explain(ray: Any, asked: Asked, shares: Sequence[Share], output: Output, means: Means) -> Iterator[int]:
    actors = fitting([node["Resources"] for node in ray.nodes() if node["Alive"]], means.kind)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [
        {"number": share.number, "paths": [os.fsencode(path) for path in share.paths]} for share in shares
    ]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Actor,
        batch_size=max(1, min(SHARES, len(rows) // (4 * actors.number))),
        fn_constructor_args=([ray.put(asked)], output, output.settings(), means, actors.cpus),
        compute=ray.data.ActorPoolStrategy(size=actors.number),
        num_cpus=actors.cpus,
        num_gpus=actors.gpus,
    )
    for row in done.iter_rows():
        if len(row["refused"]):
            raise RevgraphError(*map(str, row["refused"]))
        yield int(row["pictures"])


def fitting(machines: Sequence[Mapping[str, float]], device: str) -> Actors:
    """The actors for machines of so many "CPU" and "GPU" each.

    Raises:
        RevgraphError: No machine has the device.
    """
    if device == "cpu":
        sizes = [int(machine.get("CPU", 0)) for machine in machines]
        cores = min([CORES, *filter(None, sizes)])
        return Actors(sum(size // cores for size in sizes), cores, 0)
    with_gpu = [machine for machine in machines if machine.get("GPU")]
    if not with_gpu:
        raise RevgraphError("cannot run on CUDA", "no machine of the cluster has a GPU", "--device cpu")
    cpus = min(machine.get("CPU", 1) / machine["GPU"] for machine in with_gpu)
    sharing = math.ceil(cpus / CORES)
    return Actors(int(sum(machine["GPU"] for machine in with_gpu)) * sharing, cpus / sharing, 1 / sharing)


class _Actor:
    """Runs on its machine; made once and then called for some shares at a time."""

    def __init__(
        self, asked: Sequence[Any], output: Output, noted: str | None, means: Means, cpus: float
    ) -> None:
        self._asked, self._output, self._noted = asked[0], output, noted
        self._means, self._workers = means, means.workers(int(cpus))

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[Any]]:
        """How many pictures went by; what cannot go on is said in parts, for Ray keeps no exception whole."""
        shares = [
            Share(int(number), [os.fsdecode(path) for path in paths])
            for number, paths in zip(rows["number"], rows["paths"], strict=True)
        ]
        try:
            done = sum(pipeline.explain(self._explaining, shares, self._output, self._workers))
        except RevgraphError as error:
            return {"pictures": [0], "refused": [[error.what, error.why, error.remedy]]}
        return {"pictures": [done], "refused": [[]]}

    @cached_property
    def _explaining(self) -> Explaining:
        if self._output.settings() != self._noted:
            what = f"cannot write on '{platform.node()}'"
            why = f"'{self._output.place}' there is not the folder that was begun here"
            raise RevgraphError(what, why, "a folder that all machines share, or a URI")
        return self._means.explaining(_ray().get(self._asked))


def _ray() -> Any:
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it logs as errors what does no harm
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing_extra("cannot run on Ray", "ray", "ray") from error
    return ray
