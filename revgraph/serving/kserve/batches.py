"""Requests that wait are run together: no delay is added, for they gather while others run.

KServe's own batcher is a process beside the server that joins JSON alone.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from typing import Generic, Protocol, TypeVar


class Job(Protocol):
    """What can be run with others of the same key, if that is not None."""

    @property
    def key(self) -> Hashable: ...

    @property
    def rows(self) -> int: ...


J = TypeVar("J", bound=Job)
A = TypeVar("A")


class Batches(Generic[J, A]):
    """Runs jobs, one batch after the other.

    Args:
        run: Gives an answer to each of several jobs that may run together; called in the executor.
        most: How many rows a batch has, unless one job has more.
        executor: Of one thread.
        observe: Told the rows of each batch.
    """

    def __init__(
        self,
        run: Callable[[Sequence[J]], Sequence[A]],
        most: int,
        executor: Executor,
        observe: Callable[[int], object],
    ) -> None:
        self._run, self._most, self._executor, self._observe = run, most, executor, observe
        self._waiting: deque[tuple[J, asyncio.Future[A]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def answer(self, job: J) -> A:
        """The job's own answer, or what running it alone raises."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            if batch := self._next():
                await self._answer(batch)

    def _next(self) -> list[tuple[J, asyncio.Future[A]]]:
        """The job that has waited longest and those of its key that fit; those given up are dropped."""
        batch: list[tuple[J, asyncio.Future[A]]] = []
        later: deque[tuple[J, asyncio.Future[A]]] = deque()
        rows = 0
        for job, future in self._waiting:
            first = batch[0][0] if batch else job
            joins = job is first or (job.key is not None and job.key == first.key)
            if future.done():
                continue
            if joins and (not batch or rows + job.rows <= self._most):
                batch.append((job, future))
                rows += job.rows
            else:
                later.append((job, future))
        self._waiting = later
        return batch

    async def _answer(self, batch: Sequence[tuple[J, asyncio.Future[A]]]) -> None:
        jobs = [job for job, _ in batch]
        self._observe(sum(job.rows for job in jobs))
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._executor, self._run, jobs)
        except Exception as error:  # whoever waits is told, whatever it is
            if len(batch) > 1:  # one of them is to blame
                for each in batch:
                    if not each[1].done():
                        await self._answer([each])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
