"""Scoring processes with a time limit per sample. Nothing that a reward function does reaches the caller's process.

One thread per worker process owns it: it takes a sample from the common queue, waits for the score, and puts a new
process in the place of one that was killed or died.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Self

from core.config.sections.reward import RewardConfig
from core.processes.user_process import START_TIMEOUT_S, WorkerStartError
from core.reward.rewards import CLOSED, Rewards
from core.reward.sample import RewardInput, Score
from core.reward.worker_process import WorkerGone, WorkerProcess

logger = logging.getLogger(__name__)

JOIN_TIMEOUT_S = 30.0
Job = tuple[RewardInput, "Future[Score]"]


class RewardPool(Rewards):
    """Scores samples in `config.num_workers` processes.

    A sample that cannot be scored gets a `Score` with a failure text, never an exception: the function raised, returned
    no finite number, ran longer than `config.timeout_s` (its process is then killed and replaced) or ended its process.
    """

    def __init__(self, config: RewardConfig, of_sets: Mapping[str, RewardConfig] | None = None) -> None:
        """Keep what the processes are told.

        Args:
            of_sets: by name, the rewards of evaluation sets that are scored otherwise than by `config`; times and
                number of processes are those of `config`.
        """
        self.config = config
        self.of_sets = dict(of_sets or {})
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._slots: list[_Slot] = []
        self._closed = threading.Event()
        self._gate = threading.Lock()  # nothing is queued behind the end marks that close() puts

    def __enter__(self) -> Self:
        """Start the workers and wait until they can score.

        Raises:
            WorkerStartError: the reward section is unusable, or a process does not come up within 120 s.
        """
        self._slots = [_Slot(index, self, self._jobs, self._closed) for index in range(self.config.num_workers)]
        try:
            for slot in self._slots:
                slot.started.result(START_TIMEOUT_S + JOIN_TIMEOUT_S)
        except BaseException:
            self.close()
            raise
        return self

    def submit(self, sample: RewardInput) -> Future[Score]:
        """Queue a sample. The future gets its score within the time limits of the samples before it and its own."""
        future: Future[Score] = Future()
        with self._gate:
            if self._closed.is_set() or not self._slots:
                raise RuntimeError("the reward pool is not open; wanted submit() inside `with RewardPool(...)`")
            self._jobs.put((sample, future))
        return future

    def close(self) -> None:
        """Kill the workers, whatever they do; samples without a score get a failure. May be called again."""
        with self._gate:
            self._closed.set()
        for slot in self._slots:
            self._jobs.put(None)
            slot.kill()
        for slot in self._slots:
            slot.thread.join(JOIN_TIMEOUT_S)
        _fail_all(self._jobs)


class _Slot:
    """A place for one worker process, and the thread that owns it.

    idle -> scoring -> idle; scoring -> empty when the process is killed or dies; empty -> idle at the next sample.
    """

    def __init__(
        self, index: int, pool: RewardPool, jobs: queue.SimpleQueue[Job | None], closed: threading.Event
    ) -> None:
        self._pool = pool
        self._jobs = jobs
        self._closed = closed
        self._guard = threading.Lock()  # no process is started once the pool is closed
        self.worker: WorkerProcess | None = None
        self.started: Future[None] = Future()
        self.thread = threading.Thread(target=self._run, name=f"reward-{index}", daemon=True)
        self.thread.start()

    def kill(self) -> None:
        """End the process from another thread; the owner then sees the socket close."""
        with self._guard:
            if self.worker is not None:
                self.worker.kill()

    def _run(self) -> None:
        try:
            self._ready_worker()
            self.started.set_result(None)
        except BaseException as error:
            self._drop_worker()
            self.started.set_exception(error)
            return
        try:
            while (job := self._jobs.get()) is not None:
                sample, future = job
                if future.set_running_or_notify_cancel():
                    future.set_result(self._score(sample))
        finally:
            self._drop_worker()

    def _score(self, sample: RewardInput) -> Score:
        for _ in range(2):  # a worker may be found dead before it gets the sample: that is not the sample's doing
            try:
                score = self._ready_worker().score(sample)
            except WorkerGone as error:
                logger.warning("reward worker found dead: %s", error)
                continue
            except Exception as error:  # whatever it is, the caller waits for an answer
                logger.warning("reward worker lost: %s: %s", type(error).__name__, error)
                return Score(None, str(error))
            return Score(None, CLOSED) if score.failure and self._closed.is_set() else score
        return Score(None, "the reward workers die before they are given a sample")

    def _ready_worker(self) -> WorkerProcess:
        if self.worker is not None and self.worker.alive:
            return self.worker
        self._drop_worker()
        with self._guard:
            if self._closed.is_set():
                raise WorkerStartError(CLOSED)
            self.worker = WorkerProcess(self._pool.config, self._pool.of_sets)
        self.worker.wait_ready()
        return self.worker

    def _drop_worker(self) -> None:
        with self._guard:
            if self.worker is not None:
                self.worker.close()
                self.worker = None


def _fail_all(jobs: queue.SimpleQueue[Job | None]) -> None:
    while not jobs.empty():
        job = jobs.get()
        if job is not None and job[1].set_running_or_notify_cancel():
            job[1].set_result(Score(None, CLOSED))
