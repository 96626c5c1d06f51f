"""The processes of a user's generation, as their driver sees them. One thread with an event loop of its own owns them.

A process that is lost is replaced, and the tasks that were in it begin again in another.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from core.processes.user_process import WorkerStartError
from core.rollout.task import Task
from core.rollout.worker_process import Made, TaskFailed, Worker, WorkerLost
from core.sglang.client import EngineClient

MAX_STARTS = 3  # of one task, in processes that died

T = TypeVar("T")


class Workers:
    """`num_workers` processes; each task goes to the one with the least under way."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        num_workers: int,
        timeout_s: float,
        decode: Any,
        with_routing: bool = False,
    ) -> None:
        """Make the places of the processes, and the event loop that runs them.

        Args:
        settings: what a process is begun with: generate, options, section, model_dir.
        timeout_s: deadline of a task.
        decode: token ids -> text.
        with_routing: whether engines are asked for their experts, in training.
        """
        self._settings = settings
        self._timeout_s = timeout_s
        self._decode = decode
        self._with_routing = with_routing
        self._places = [Place() for _ in range(num_workers)]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="generation", daemon=True)

    def start(self) -> None:
        """Return when all processes are ready.

        Raises:
            WorkerStartError: one cannot be started.
        """
        self._thread.start()
        try:
            self.call(self._start_all()).result()
        except BaseException:
            self.close()
            raise

    def call(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Have the workers' own event loop run it; from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def run(self, task: Task, engine: EngineClient) -> Made:
        """Run a task as `Worker.run` does, in another process if one is lost. In the workers' own event loop."""
        lost = ""
        for _ in range(MAX_STARTS):
            try:
                return await self._run_once(task, engine)
            except WorkerLost as error:
                lost = str(error)
        raise TaskFailed(f"{lost}, {MAX_STARTS} times with this task under way")

    def close(self) -> None:
        """Kill all processes. May be called again."""
        if self._thread.is_alive():
            self.call(self._close_all()).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _run_once(self, task: Task, engine: EngineClient) -> Made:
        place = min(self._places, key=lambda one: one.load)
        place.load += 1
        try:
            worker = await self._ready(place)
            return await worker.run(task, engine)
        except WorkerStartError as error:
            raise TaskFailed(str(error)) from error
        finally:
            place.load -= 1

    async def _ready(self, place: Place) -> Worker:
        async with place.starting:
            if place.worker is None or not place.worker.alive:
                worker = Worker(self._timeout_s, self._decode, self._with_routing)
                await worker.start(self._settings)
                place.worker = worker
            return place.worker

    async def _start_all(self) -> None:
        await asyncio.gather(*(self._ready(place) for place in self._places))

    async def _close_all(self) -> None:
        for place in self._places:
            if place.worker is not None and place.worker.alive:
                place.worker.close()


@dataclass(eq=False)
class Place:
    """A place for one process, which may be lost and started again."""

    worker: Worker | None = None
    load: int = 0  # tasks that are there, or wait for a process
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
