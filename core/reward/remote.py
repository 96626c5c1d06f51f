"""Rewards from other nodes: a reward pool's interface, with reward servers in place of processes of this node.

One thread runs the event loop in which samples are handed out (`core.reward.remote_dispatch`) and servers are followed
(`core.reward.remote_servers`). A server that dies or hangs costs no sample: what it had is sent to another.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Self

from core.reward.remote_dispatch import Dispatch, Job
from core.reward.remote_servers import Directory
from core.reward.rewards import Rewards
from core.reward.sample import RewardInput, Score

JOIN_S = 30.0


class RemoteRewardPool(Rewards):
    """Scores samples on the run's reward servers.

    A sample that cannot be scored gets a `Score` with a failure text. When there has been no server at all for
    `start_s`, futures raise `RewardsUnavailable`: the samples are not to blame, and the step cannot go on without them.
    """

    def __init__(self, directory: Directory, key: str, start_s: float) -> None:
        """Keep the settings; servers are looked for once the pool is entered.

        Args:
        key: the run's key, which the servers ask for.
        start_s: deadline for all servers to answer in the beginning, and for one to come back when all are lost.
        """
        self._directory = directory
        self._key = key
        self._start_s = start_s
        self._gate = threading.Lock()  # nothing is submitted behind close()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # None: not open

    def __enter__(self) -> Self:
        """Wait until every server answers.

        Raises:
            RewardsUnavailable: some do not within `start_s`, or refuse the key; the message names them.
        """
        entered: Future[asyncio.AbstractEventLoop] = Future()
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(entered, ready)), name="remote-rewards", daemon=True
        )
        self._thread.start()
        self._loop = entered.result()
        try:
            ready.result()
        except BaseException:
            self.close()
            raise
        return self

    def submit(self, sample: RewardInput) -> Future[Score]:
        """Queue a sample. Its score comes within the time limits of the samples before it and its own."""
        job = Job(sample)
        with self._gate:
            if self._loop is None:
                raise RuntimeError("the reward pool is not open; wanted submit() inside `with RemoteRewardPool(...)`")
            self._loop.call_soon_threadsafe(self._dispatch.accept, job)
        return job.future

    def close(self) -> None:
        """Let go of the servers; samples without a score get a failure. May be called again."""
        with self._gate:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._dispatch.close)
            self._loop = None
        if self._thread is not None:
            self._thread.join(JOIN_S)

    async def _run(self, entered: Future[asyncio.AbstractEventLoop], ready: Future[None]) -> None:
        self._dispatch = Dispatch(self._directory, self._key, self._start_s)
        entered.set_result(asyncio.get_running_loop())
        await self._dispatch.run(ready)
