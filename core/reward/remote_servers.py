"""The reward servers as a client sees them: found, asked whether they live, given up, found again.

published ── answers ──► in use ── a request breaks off ──► doubted ── answers ──► in use
    ▲                                                          └── does not ──► lost: its agent is to end it
    └────────────────────── the agent starts the next incarnation ◄─────────────┘
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from core.processes.rendezvous import Member
from core.reward.rewards import RewardsUnavailable

HEALTH_S = 10.0
WINDOW_S = 0.2
MAX_WINDOW = 128
POLL_S = 0.5  # between two looks for servers, as long as one is missing

log = logging.getLogger(__name__)


class Directory(Protocol):
    """Who knows the servers: `core.reward.remote_directory`."""

    names: tuple[str, ...]

    def published(self) -> list[Member]:
        """The latest incarnation of each."""
        ...

    def answered(self, member: Member) -> None:
        """Note that it can score."""
        ...

    def condemn(self, member: Member) -> None:
        """Have its agent end it."""
        ...


@dataclass(eq=False)
class Server:
    """A server that answered.

    `window`: how many samples it may have at a time: two per scoring process, so that slow ones are shared out fairly,
    or what it scores in 0.2 s, so that fast ones travel in few requests.
    """

    member: Member
    num_workers: int
    window: int = field(init=False)
    at_work: int = 0  # samples that it has
    doubts: int = 0  # requests that broke off and are being looked into
    suspect: bool = False  # it works on a sample that may end it
    lost: bool = False

    def __post_init__(self) -> None:
        self.window = 2 * self.num_workers

    @property
    def room(self) -> int:
        """Number of further samples that it may be sent."""
        return self.window - self.at_work

    @property
    def usable(self) -> bool:
        """Whether it may be sent samples now."""
        return self.room > 0 and self.doubts == 0 and not self.suspect and not self.lost

    def took(self, seconds: float, num_samples: int) -> None:
        """Learn from a request."""
        self.window = max(2 * self.num_workers, min(int(WINDOW_S * num_samples / seconds), MAX_WINDOW))


class Servers:
    """All servers of a run. Everything here runs in one event loop."""

    def __init__(
        self, directory: Directory, client: httpx.AsyncClient, start_s: float, changed: Callable[[], None]
    ) -> None:
        """Begin without servers; they are looked for in the directory.

        Args:
        start_s: how long there may be no server at all.
        changed: called when a server has come, or when there has been none for too long.
        """
        self._directory = directory
        self._client = client
        self._start_s = start_s
        self._changed = changed
        self._in_use: dict[str, Server] = {}
        self._given_up: set[tuple[str, int]] = set()  # (name, incarnation)
        self._trouble: dict[str, str] = {}  # name -> why it does not answer
        self._somebody_missing = asyncio.Event()
        self.unavailable: str | None = None  # why there is no hope at present

    def usable(self) -> list[Server]:
        """Servers with room for samples."""
        return [server for server in self._in_use.values() if server.usable]

    async def look_into(self, server: Server, error: Exception) -> None:
        """A request broke off: is the server still there? One that was silent for too long is given up unasked."""
        reason = describe(error)
        log.warning("reward_server=%s a request broke off: %s", server.member.name, reason)
        silent = isinstance(error, httpx.TimeoutException)
        if not server.lost and (silent or await self._num_workers(server.member) is None) and not server.lost:
            await self._give_up(server, reason)

    async def follow(self, ready: Future[None]) -> None:
        """Take in whoever answers, for ever. `ready` is set when all do, or fails when the time is up."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._start_s
        while True:
            await self._take_in()
            complete = len(self._in_use) == len(self._directory.names)
            if not ready.done():
                self._start(ready, complete, loop.time() > ends)
            elif self._in_use:
                ends, self.unavailable = loop.time() + self._start_s, None
            elif loop.time() > ends:
                self.unavailable = self._who_is_missing()
            self._changed()
            if complete:
                self._somebody_missing.clear()
                await self._somebody_missing.wait()
                ends = loop.time() + self._start_s
            else:
                await asyncio.sleep(POLL_S)

    def _start(self, ready: Future[None], complete: bool, overdue: bool) -> None:
        if complete:
            ready.set_result(None)
        elif overdue:
            ready.set_exception(RewardsUnavailable(self._who_is_missing()))

    async def _take_in(self) -> None:
        """Servers that are published and answer."""
        try:
            published = await asyncio.to_thread(self._directory.published)
        except Exception as error:  # the store is gone, or forged: the deadline decides
            log.warning("reward servers cannot be looked up: %s", describe(error))
            return
        new = [m for m in published if m.name not in self._in_use and (m.name, m.incarnation) not in self._given_up]
        for member, num_workers in zip(new, await asyncio.gather(*map(self._num_workers, new)), strict=True):
            if num_workers is not None:
                self._in_use[member.name] = Server(member, num_workers)
                log.info("reward_server=%s url=%s workers=%d ready", member.name, member.url, num_workers)
                await self._tell(self._directory.answered, member)

    async def _give_up(self, server: Server, reason: str) -> None:
        member = server.member
        server.lost = True
        self._given_up.add((member.name, member.incarnation))
        self._trouble[member.name] = reason
        if self._in_use.get(member.name) is server:
            del self._in_use[member.name]
        log.warning("reward_server=%s incarnation=%d is lost: %s", member.name, member.incarnation, reason)
        self._somebody_missing.set()
        await self._tell(self._directory.condemn, member)

    async def _num_workers(self, member: Member) -> int | None:
        """What a server says of itself; None if it does not answer."""
        try:
            answer = await self._client.get(f"{member.url}/health", timeout=HEALTH_S)
            if answer.status_code == 200:
                return max(1, int(answer.json()["num_workers"]))
            self._trouble[member.name] = f"status {answer.status_code}: {answer.text[:200]}"
        except (httpx.HTTPError, ValueError, TypeError, LookupError) as error:
            self._trouble[member.name] = describe(error)
        return None

    async def _tell(self, tell: Callable[[Member], None], member: Member) -> None:
        try:
            await asyncio.to_thread(tell, member)
        except Exception as error:
            log.warning("the rendezvous cannot be told about %s: %s", member.name, describe(error))

    def _who_is_missing(self) -> str:
        names = self._directory.names
        missing = [name for name in names if name not in self._in_use]
        named = ", ".join(f"{name} ({self._trouble.get(name, 'not published')})" for name in missing)
        return (
            f"{len(self._in_use)} of {len(names)} reward servers answer, after {self._start_s:.0f} s; missing: "
            f"{named}. See their logs in the attempt's folder."
        )


def describe(error: Exception) -> str:
    """Type and message; some of httpx's errors have none."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
