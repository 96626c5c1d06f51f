"""Samples on their way to reward servers and back. Everything here runs in one event loop.

waiting ── sent ──► at a server ──► scored
   ▲                    │
   └── the request breaks off: up to 3 times, then the sample fails

A sample may be what ends its server (it may eat all memory there). The third time it has a server of its own, so that
no other is blamed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import httpx

from core.processes.plain import NotPlain
from core.reward.remote_messages import SILENCE_S, dump_sample, load_score, request_body
from core.reward.remote_servers import Directory, Server, Servers
from core.reward.rewards import CLOSED, RewardsUnavailable
from core.reward.sample import RewardInput, Score

CONNECT_S = 10.0
GATHER_S = 0.005  # samples that come within this time travel together
MAX_BATCH = 64
MAX_TRIES = 3


@dataclass(eq=False)
class Job:
    """A sample on its way."""

    sample: RewardInput
    future: Future[Score] = field(default_factory=Future)
    body: bytes = b""
    tries: int = 0  # requests that broke off over it

    @property
    def suspect(self) -> bool:
        """Whether it may be what ends the servers."""
        return self.tries == MAX_TRIES - 1

    def finish(self, score: Score) -> None:
        """Give it its score, unless it has one or nobody wants it any more."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_result(score)

    def give_up(self, reason: str) -> None:
        """There is nobody to score it."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(RewardsUnavailable(reason))


class Dispatch:
    """Who gets which sample."""

    def __init__(self, directory: Directory, key: str, start_s: float) -> None:
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {key}"}
        self._client = httpx.AsyncClient(headers=headers, timeout=timeout, limits=limits, trust_env=False)
        self._servers = Servers(directory, self._client, start_s, self._send_soon)
        self._waiting: deque[Job] = deque()
        self._at_servers: set[Job] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending = False
        self._closed = asyncio.Event()

    async def run(self, ready: Future[None]) -> None:
        """Serve until `close`. `ready`: see `Servers.follow`."""
        async with self._client:
            self._begin(self._servers.follow(ready))
            await self._closed.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for job in [*self._waiting, *self._at_servers]:
            job.finish(Score(None, CLOSED))

    def close(self) -> None:
        """Let go of everything."""
        self._closed.set()

    def accept(self, job: Job) -> None:
        """A new sample."""
        try:
            job.body = dump_sample(job.sample)
        except NotPlain as error:
            job.finish(Score(None, f"the sample cannot be sent to a reward server: {error}"))
            return
        self._waiting.append(job)
        self._send_soon()

    def _send_soon(self) -> None:
        if not self._sending:
            self._sending = True
            asyncio.get_running_loop().call_later(GATHER_S, self._send)

    def _send(self) -> None:
        """Share what waits out among the servers with room, the emptiest first."""
        self._sending = False
        if self._servers.unavailable is not None:
            while self._waiting:
                self._waiting.popleft().give_up(self._servers.unavailable)
        while self._waiting and (free := self._free()):
            server = min(free, key=lambda server: server.at_work / server.num_workers)
            jobs = self._take(min(server.room, -(-len(self._waiting) // len(free)), MAX_BATCH))
            server.at_work += len(jobs)
            server.suspect = jobs[0].suspect
            self._at_servers.update(jobs)
            self._begin(self._ask(server, jobs))

    def _free(self) -> list[Server]:
        """Servers that the next sample may go to."""
        usable = self._servers.usable()
        return [server for server in usable if server.at_work == 0] if self._waiting[0].suspect else usable

    def _take(self, limit: int) -> list[Job]:
        """The next samples; a suspect alone."""
        taken = [self._waiting.popleft()]
        while len(taken) < limit and self._waiting and not taken[0].suspect and not self._waiting[0].suspect:
            taken.append(self._waiting.popleft())
        return taken

    async def _ask(self, server: Server, jobs: list[Job]) -> None:
        """One request; samples that it leaves without a score wait again."""
        error: Exception = httpx.RemoteProtocolError("the answer ended early")
        began = time.monotonic()
        try:
            await self._stream(server, jobs)
            server.took(time.monotonic() - began, len(jobs))
        except (httpx.HTTPError, ValueError) as caught:
            error = caught
        left = [job for job in jobs if job in self._at_servers]
        server.at_work -= len(left)
        server.suspect = False
        if left:
            server.doubts += 1
            self._again(left, server)
            await self._servers.look_into(server, error)
            server.doubts -= 1
        self._send_soon()

    async def _stream(self, server: Server, jobs: list[Job]) -> None:
        body = request_body([job.body for job in jobs])
        async with self._client.stream("POST", f"{server.member.url}/score", content=body) as answer:
            if answer.status_code != 200:
                text = (await answer.aread())[:500].decode(errors="replace")
                raise ValueError(f"status {answer.status_code}: {text}")
            async for line in answer.aiter_lines():
                if (found := load_score(line, len(jobs))) is not None:
                    self._scored(jobs[found[0]], found[1], server)

    def _scored(self, job: Job, score: Score, server: Server) -> None:
        if job in self._at_servers:
            self._at_servers.remove(job)
            server.at_work -= 1
            job.finish(score)
            self._send_soon()

    def _again(self, jobs: list[Job], server: Server) -> None:
        """Back to the front of the queue, or failed."""
        self._at_servers.difference_update(jobs)
        for job in reversed(jobs):
            job.tries += 1
            if job.tries < MAX_TRIES:
                self._waiting.appendleft(job)
            else:
                name = server.member.name
                job.finish(Score(None, f"{MAX_TRIES} requests to reward servers broke off over it, the last to {name}"))
        self._send_soon()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
