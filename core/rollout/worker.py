"""A process for a user's generation: `python -P -m core.rollout.worker SOCKET NOTE PARENT_PID`.

Tasks run at the same time in one event loop. Before each piece of a task's code, its number is written into the file
NOTE: so the driver knows whose code it was when the process hangs or dies. What the two say: `core.rollout.messages`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import types
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, replace
from typing import Any

from core.data import Rendering
from core.doors import GENERATE
from core.pretrained.tokenizer import Tokenizer, load_tokenizer
from core.pretrained.turns import following, without_double_end
from core.processes.die_with_parent import die_with_parent
from core.processes.user_process import short
from core.rollout import messages
from core.rollout.places import describe, is_coroutine, place_of, waits_at
from core.rollout.seeds import turn_seed
from core.rollout.task import Response, SampleFailed, Task, Turn
from core.samples import SamplingParams

WANTED = "a Response or a list of Responses"
current: ContextVar[int] = ContextVar("current", default=0)  # number of the task whose code runs


class Worker:
    """The tasks of this process, and its line to the driver."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: int) -> None:
        self._reader = reader
        self._writer = writer
        self._note = note
        self._calls: dict[int, asyncio.Future[Turn]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._codes: dict[int, Coroutine[Any, Any, None]] = {}  # of each task, where it waits
        self._num_calls = 0

    async def serve(self) -> None:
        """Answer until the driver closes."""
        _, settings = messages.parts(await self._reader.readline())
        try:
            generate = GENERATE.build(settings["generate"], settings["options"], settings["section"])
            self._place = place_of(generate)
            if not is_coroutine(generate):
                raise ValueError(f"found {self._place}, a plain function; wanted async def generate(task, engine)")
            self._tokenizer = load_tokenizer(settings["model_dir"]) if settings["model_dir"] else None
            self._renderings = {name: Rendering(**fields) for name, fields in settings["renderings"].items()}
        except Exception as error:
            self._send("unfit", str(error) if isinstance(error, ValueError) else describe(error, ""))
            with contextlib.suppress(ConnectionError):  # nobody waits for it any more
                await self._writer.drain()
            return
        self._generate = generate
        asyncio.get_running_loop().set_task_factory(self._noted_task)  # type: ignore[arg-type]  # 3.12 gives it more
        self._send("ready", self._place)
        while text := await self._reader.readline():
            self._take(*messages.parts(text))

    def _take(self, kind: str, number: int, *rest: Any) -> None:
        if kind == "task":
            token = current.set(number)
            self._codes[number] = self._run(number, rest[0])
            self._tasks[number] = asyncio.create_task(self._codes[number])
            current.reset(token)
        elif kind == "drop":
            if number in self._tasks:
                self._drop(number)
        elif (call := self._calls.get(number)) is not None and not call.done():
            if kind == "turn":
                call.set_result(messages.read_turn(rest))
            else:
                call.set_exception(ValueError(rest[0]))

    def _drop(self, number: int) -> None:
        task, where = self._tasks[number], waits_at(self._codes[number], self._place)
        task.add_done_callback(lambda _: self._send("dropped", number, where))
        task.cancel()

    async def _run(self, number: int, fields: dict[str, Any]) -> None:
        task = messages.read_task(fields)
        try:
            made = await self._generate(task, WorkerEngine(self, number, task))
            self._send("made", number, [messages.response_fields(one) for one in _responses(made)])
        except asyncio.CancelledError:
            raise
        except SampleFailed as error:
            self._send("failed", number, short(str(error)))
        except BaseException as error:  # SystemExit must not end the worker, which other tasks are in
            self._send("failed", number, describe(error, self._place))
        finally:
            del self._tasks[number], self._codes[number]

    async def ask(self, number: int, tokens: Sequence[int], params: SamplingParams) -> Turn:
        """Have the driver ask the task's engine."""
        self._num_calls += 1
        call = self._num_calls
        self._send("generate", number, call, [int(token) for token in tokens], asdict(params))
        self._calls[call] = asyncio.get_running_loop().create_future()
        try:
            return await self._calls[call]
        finally:
            self._calls.pop(call, None)

    def tokenizer(self) -> Tokenizer:
        assert self._tokenizer is not None, "a worker of a test without a model"
        return self._tokenizer

    def rendering(self, evaluation: str) -> Rendering:
        return self._renderings.get(evaluation, Rendering())

    def _send(self, *parts: Any) -> None:
        self._writer.write(messages.line(*parts))

    def _noted_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        number = current.get()
        return asyncio.Task(noted(coroutine, number, self._write_note) if number else coroutine, loop=loop, **options)

    def _write_note(self, number: int) -> None:
        os.pwrite(self._note, number.to_bytes(messages.NOTE_BYTES, "little"), 0)


class WorkerEngine:
    """The engine of one task: see `core.rollout.task.TaskEngine`."""

    def __init__(self, worker: Worker, number: int, task: Task) -> None:
        self._worker = worker
        self._number = number
        self._task = task
        self._num_turns = 0

    async def generate(self, tokens: Sequence[int], params: SamplingParams | None = None) -> Turn:
        params = params or self._task.sampling
        if params.seed == self._task.sampling.seed:
            params = replace(params, seed=turn_seed(params.seed, self._num_turns))
        self._num_turns += 1
        return await self._worker.ask(self._number, tokens, params)

    def encode(self, text: str) -> list[int]:
        return self._worker.tokenizer().encode(text)

    def decode(self, tokens: Sequence[int], special: bool = False) -> str:
        return self._worker.tokenizer().decode(tokens, skip_special_tokens=not special)

    def render(self, messages: Sequence[Mapping[str, Any]], generation_prompt: bool = True) -> str:
        how = self._worker.rendering(self._task.evaluation)
        return how.text(self._worker.tokenizer(), [dict(one) for one in messages], generation_prompt)

    def after(self, tokens: Sequence[int], messages: Sequence[Mapping[str, Any]]) -> list[int]:
        text = following(self.render, [dict(one) for one in messages])
        return without_double_end(tokens, self.encode(text))


async def noted(coroutine: Coroutine[Any, Any, Any], number: int, note: Callable[[int], None]) -> Any:
    """The coroutine, with `number` in the note while its code runs, and 0 while it waits."""
    return await _steps(coroutine, number, note)


@types.coroutine
def _steps(coroutine: Coroutine[Any, Any, Any], number: int, note: Callable[[int], None]) -> Generator[Any, Any, Any]:
    value, error = None, None
    while True:
        note(number)
        try:
            asked = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            return stop.value
        finally:
            note(0)
        value, error = None, None
        try:
            value = yield asked
        except BaseException as thrown:
            error = thrown


def _responses(made: Any) -> list[Response]:
    found = made if isinstance(made, list) else [made]
    for one in found:
        if not isinstance(one, Response):
            raise TypeError(f"found a {type(one).__name__}; wanted {WANTED}")
    return found


async def serve(descriptor: int, note: int) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor), limit=messages.MAX_LINE_BYTES)
    await Worker(reader, writer, note).serve()


def main() -> None:
    descriptor, note, parent_pid = map(int, sys.argv[1:])
    die_with_parent(parent_pid)
    for one in (descriptor, note):
        os.set_inheritable(one, False)  # or a program that the function starts would keep the socket open
    asyncio.run(serve(descriptor, note))


if __name__ == "__main__":
    main()
