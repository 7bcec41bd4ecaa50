"""A bounded queue of images before a detector's processes. What is in it is answered: a process that dies is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from fewmark.web.serving.worker import Job, JobAnswer, WorkerDied

BATCH = 8
"""Most images that a process takes at a time: those that wait, no image is waited for."""


class Busy(Exception):  # noqa: N818 it is not an error of the service
    """The queue has no room for a request."""


class AnswersJobs(Protocol):
    """A worker, see `fewmark.web.serving.worker.Worker`."""

    def answer(self, jobs: Sequence[Job], timeout_s: float) -> list[JobAnswer]: ...
    def stop(self) -> None: ...


@dataclass(frozen=True, eq=False)
class _Waiting:
    job: Job
    answer: asyncio.Future[JobAnswer]


class Pool:
    """Workers, and the images that wait for them.

    Args:
        start: Starts a worker; called again where one has died.
        n_workers: Number of workers.
        capacity: Most images that wait.
        timeout_s: Longest time for one image in a worker.
        on_batch: Called with the size of each batch.
    """

    def __init__(
        self,
        start: Callable[[], AnswersJobs],
        n_workers: int,
        capacity: int,
        timeout_s: float,
        on_batch: Callable[[int], None] = lambda n: None,
    ) -> None:
        self.n_workers, self.capacity, self.timeout_s = n_workers, capacity, timeout_s
        self.n_restarts, self.n_ready = 0, 0
        self._start, self._on_batch = start, on_batch
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def n_waiting(self) -> int:
        """Number of images that wait."""
        return self._waiting.qsize()

    @property
    def ready(self) -> bool:
        """Whether every worker has loaded its model."""
        return self.n_ready == self.n_workers

    async def open(self) -> None:
        """Start the workers.

        Raises:
            WorkerDied: One cannot load the model.
        """
        workers = await asyncio.gather(*(asyncio.to_thread(self._start) for _ in range(self.n_workers)))
        self.n_ready = len(workers)
        self._tasks = [asyncio.create_task(self._serve(worker)) for worker in workers]

    async def close(self) -> None:
        """Answer what waits, for as long as an image may take, then end the workers."""
        with suppress(TimeoutError):  # no worker can be started any more
            await asyncio.wait_for(self._waiting.join(), self.timeout_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.n_ready = 0

    async def ask(self, jobs: Sequence[Job]) -> list[JobAnswer]:
        """Answer the images of a request.

        Raises:
            Busy: There is no room for all of them; none is taken.
            WorkerDied: A worker died of one of them.
        """
        if self.n_waiting + len(jobs) > self.capacity:
            raise Busy
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(job, loop.create_future()) for job in jobs]
        for w in waiting:
            self._waiting.put_nowait(w)
        try:
            return list(await asyncio.gather(*(w.answer for w in waiting)))
        finally:
            for w in waiting:
                w.answer.cancel()  # of a client that is gone, or beside one that failed

    async def _serve(self, worker: AnswersJobs) -> None:
        try:
            while True:
                batch = [await self._waiting.get()]
                while len(batch) < BATCH and not self._waiting.empty():
                    batch.append(self._waiting.get_nowait())
                worker = await self._answer(worker, [w for w in batch if not w.answer.done()])
                for _ in batch:
                    self._waiting.task_done()
        finally:
            worker.stop()

    async def _answer(self, worker: AnswersJobs, batch: Sequence[_Waiting]) -> AnswersJobs:
        """Answer a batch; the worker, or the one in its place. Images of a batch that ended a worker are tried once more, each alone."""
        if not batch:
            return worker
        try:
            await self._try(worker, batch)
        except WorkerDied:
            worker = await self._replace(worker)
            for w in batch:
                try:
                    await self._try(worker, [w])
                except WorkerDied as error:
                    if not w.answer.done():
                        w.answer.set_exception(error)
                    worker = await self._replace(worker)
        return worker

    async def _try(self, worker: AnswersJobs, batch: Sequence[_Waiting]) -> None:
        self._on_batch(len(batch))
        answers = await asyncio.to_thread(worker.answer, [w.job for w in batch], self.timeout_s * len(batch))
        for w, answer in zip(batch, answers, strict=True):
            if not w.answer.done():
                w.answer.set_result(answer)

    async def _replace(self, worker: AnswersJobs) -> AnswersJobs:
        self.n_ready -= 1
        await asyncio.to_thread(worker.stop)
        while True:
            self.n_restarts += 1
            try:
                worker = await asyncio.to_thread(self._start)
            except WorkerDied:
                await asyncio.sleep(1)
                continue
            self.n_ready += 1
            return worker
