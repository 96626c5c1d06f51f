"""One process of a user's generation, as its driver sees it: many tasks in it, a deadline for each.

A process that hangs or dies is at its end: the task whose code it was at that moment has failed, the others are lost
with it, and may begin again in another.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from core.processes import plain
from core.processes.user_process import START_TIMEOUT_S, UserProcess, WorkerStartError
from core.rollout import messages
from core.rollout.routed import Routed, gone_on_from
from core.rollout.task import Task
from core.samples import SamplingParams
from core.sglang.client import EngineClient
from core.sglang.errors import EngineDied, EngineError, RequestRefused
from core.sglang.generation import Generation

GRACE_S = 10.0  # how long a task may take to end when it is asked to, or keep the others of its process from running

log = logging.getLogger(__name__)


class TaskFailed(RuntimeError):
    """A task that gives no sample. The message says what was found, and where."""


class WorkerLost(RuntimeError):
    """The task's process is gone, and it was not its doing."""


@dataclass(eq=False)
class Run:
    """A task under way in a process."""

    number: int
    task: Task
    engine: EngineClient
    done: asyncio.Future[list[Any]]
    weight_version: str = ""  # of the last turn
    routed: list[Routed] = field(default_factory=list)
    calls: set[asyncio.Task[None]] = field(default_factory=set)
    is_late: bool = False

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def heard(self, call: Routed) -> None:
        """Keep what a call said; a call that it goes on from says nothing more."""
        self.routed = [*(one for one in self.routed if not gone_on_from(one, call)), call]


@dataclass(frozen=True)
class Made:
    """What a task gave, unchecked."""

    place: str  # of the function
    responses: list[Any]  # each for `messages.read_response`
    weight_version: str
    routed: Sequence[Routed] = ()  # calls of its engine, where these say their experts


class Worker:
    """One process. All methods run in the event loop of `Workers`."""

    def __init__(self, timeout_s: float, decode: Any, with_routing: bool = False) -> None:
        self._timeout_s = timeout_s
        self._decode = decode
        self._with_routing = with_routing
        self._runs: dict[int, Run] = {}
        self._numbers = count(1)
        self.place = ""
        self.alive = True

    async def start(self, settings: Mapping[str, Any]) -> None:
        """Start the process, and wait until it has loaded the function.

        Raises:
        WorkerStartError: the function cannot be loaded, the process died, or 120 s have passed.
        """
        ours, theirs = socket.socketpair()
        self._note = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as the process lives
        with theirs:
            self._process = UserProcess("core.rollout.worker", theirs.fileno(), self._note.fileno())
        self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=messages.MAX_LINE_BYTES)
        self._writer.write(messages.line("begin", settings))
        try:
            answer, self.place = messages.parts(await asyncio.wait_for(self._reader.readline(), START_TIMEOUT_S))
        except TimeoutError:
            answer, self.place = "unfit", f"it was not ready after {START_TIMEOUT_S:.0f} s"
        except (ValueError, OSError):
            answer, self.place = "unfit", f"it {self._process.how_it_ended()}"
        if answer != "ready":
            self.close()
            raise WorkerStartError(f"a generation worker cannot be started (rollout.generate): {self.place}")
        self._listening = asyncio.create_task(self._listen())

    @property
    def num_runs(self) -> int:
        return len(self._runs)

    async def run(self, task: Task, engine: EngineClient) -> Made:
        """Run one task in this process.

        Raises:
        TaskFailed: the function raised, did not end in time, or brought its process down.
        WorkerLost: another task did.
        EngineDied: as the engine did.
        """
        run = Run(next(self._numbers), task, engine, asyncio.get_running_loop().create_future())
        try:
            self._send("task", run.number, messages.task_fields(task))
        except plain.NotPlain as error:
            raise TaskFailed(f"the row cannot be sent to a generation worker: {error}") from error
        self._runs[run.number] = run
        timer = asyncio.get_running_loop().call_later(self._timeout_s, self._late, run)
        try:
            return Made(self.place, await run.done, run.weight_version, run.routed)
        finally:
            timer.cancel()
            if self._runs.pop(run.number, None) is not None:
                self._send("drop", run.number)
            for call in run.calls:
                call.cancel()

    def close(self) -> None:
        """Kill the process; what is under way is lost."""
        self.alive = False
        self._process.kill()
        self._writer.close()
        self._note.close()
        for run in list(self._runs.values()):
            run.fail(WorkerLost("the generation workers were closed"))

    async def _listen(self) -> None:
        """Take messages until the process ends, or says what cannot be read."""
        try:
            while text := await self._reader.readline():
                self._take(*messages.parts(text))
            how = self._process.how_it_ended()
        except (ValueError, TypeError, OSError) as error:  # the function has written to the socket
            how = f"wrote what cannot be read ({error}), and was killed"
        if self.alive:
            self._lose(f"its process {how}", None)

    def _take(self, kind: str, number: int, *rest: Any) -> None:
        run = self._runs.get(number)
        if run is None:  # dropped meanwhile
            return
        if kind == "generate":
            call, tokens, sampling = rest
            task = asyncio.create_task(self._call(run, call, tokens, messages.read_sampling(sampling)))
            run.calls.add(task)
            task.add_done_callback(lambda one: self._call_ended(run, one))
        elif kind == "dropped":
            run.fail(TaskFailed(f"no response within {self._timeout_s:g} s (rollout.generate_timeout_s): at {rest[0]}"))
        elif kind == "failed":
            del self._runs[number]
            run.fail(TaskFailed(str(rest[0])))
        elif kind == "made" and isinstance(rest[0], list):
            del self._runs[number]
            if not run.done.done():
                run.done.set_result(rest[0])
        else:
            raise ValueError(f"an unknown message {kind!r}")

    async def _call(self, run: Run, call: int, tokens: list[int], sampling: SamplingParams) -> None:
        try:
            wanted = self._with_routing and not run.task.evaluation
            made: Generation = await run.engine.generate(tokens, sampling, with_routing=wanted)
        except EngineDied as error:
            run.fail(error)
        except (RequestRefused, EngineError, TypeError) as error:
            self._send("refused", call, str(error))
        else:
            run.weight_version = made.weight_version
            if made.routing is not None:
                run.heard(Routed([*tokens, *made.tokens], made.routing))
            text = self._decode(made.tokens)
            self._send("turn", call, made.tokens, made.logprobs, text, made.status.value, made.weight_version)

    def _call_ended(self, run: Run, call: asyncio.Task[None]) -> None:
        run.calls.discard(call)
        if run.is_late and not run.calls:
            self._late(run)

    def _late(self, run: Run) -> None:
        """The time of a task is over. While the engine works for it, the engine's own deadline counts."""
        run.is_late = True
        if run.calls or run.done.done():
            return
        self._send("drop", run.number)
        asyncio.get_running_loop().call_later(GRACE_S, self._lose_if_stuck, run)

    def _lose_if_stuck(self, run: Run) -> None:
        if self.alive and not run.done.done():
            why = f"no response within {self._timeout_s:g} s (rollout.generate_timeout_s), and its process hung for "
            self._lose(f"{why}{GRACE_S:g} s more and was killed", run)

    def _lose(self, how: str, suspect: Run | None) -> None:
        """The process is at an end. Whose code ran has failed; else the suspect; the others may begin again."""
        self.alive = False
        number = int.from_bytes(os.pread(self._note.fileno(), messages.NOTE_BYTES, 0), "little")
        guilty = self._runs.get(number) or suspect
        if guilty is not None:
            guilty.fail(TaskFailed(f"{how} ({self.place})"))
        for run in list(self._runs.values()):
            run.fail(WorkerLost(how))
        log.warning("generation worker pid=%d lost: %s", self._process.pid, how)
        self.close()

    def _send(self, *parts: Any) -> None:
        if self.alive:
            self._writer.write(messages.line(*parts))
