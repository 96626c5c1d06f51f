"""Generation in turns, `rollout.generate: dialogue`: the model, its tools, and an environment that answers it.

It is written as a user's own generation is, with what `core.rollout.task` offers and nothing else. A turn in which the
model calls tools is answered by their results; any other goes to the environment, or ends the episode if there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from core.doors import ENVIRONMENT, TOOL_FORMAT
from core.rollout.environment import Message, Player
from core.rollout.task import Heard, Response, SampleFailed, Task, TaskEngine, Turn
from core.rollout.tool_formats import ToolCall
from core.rollout.tools import ERROR, Tools
from core.samples import Status


class Dialogue:
    """Plays the episode of a task. The parameters are keys of the section `rollout`."""

    def __init__(
        self,
        environment: str | None = None,
        environment_options: Mapping[str, Any] | None = None,
        tools: Sequence[str] = (),
        tool_format: str = "plain",
        max_turns: int = 8,
        call_timeout_s: float = 30.0,
        rewritten_past: str = "refuse",
    ) -> None:
        """Load the tools and the environment; one object of it is made now, to see that it can be made.

        Raises:
            ValueError: something of it cannot be loaded.
        """
        self.max_turns = max_turns
        self.splits = rewritten_past == "split"
        self.tools = Tools(tools, call_timeout_s) if tools else None
        settings = {"tool_format": tool_format, "tools": tools}
        self.calls_in: Callable[[str], list[ToolCall]] = TOOL_FORMAT.build(tool_format, None, settings)
        self._timeout_s = call_timeout_s
        self._new_environment: Callable[[], Any] | None = None
        if environment is not None:
            first = ENVIRONMENT.build(environment, environment_options)
            kind: Callable[..., Any] = type(first)
            self._new_environment = partial(kind, **(environment_options or {}))

    def player(self) -> Player | None:
        """An environment for one episode, if there is one."""
        return None if self._new_environment is None else Player(self._new_environment(), self._timeout_s)

    async def __call__(self, task: Task, engine: TaskEngine) -> Response | list[Response]:
        return await Episode(self, task, engine).play()


@dataclass
class Counts:
    """What the reward is told of an episode, as `metadata["episode"]`."""

    turns: int = 0
    tool_calls: int = 0
    tool_errors: int = 0
    rewards: list[float | None] = field(default_factory=list)  # of the environment's steps


class Episode:
    """One task under way. What is said is appended, and never changed."""

    def __init__(self, rules: Dialogue, task: Task, engine: TaskEngine) -> None:
        self._rules = rules
        self._task = task
        self._engine = engine
        self._player = rules.player()
        self._counts = Counts()
        self._parts: list[Turn | Heard] = []  # after the prompt
        self._rewards: list[float | None] = []  # one per part
        self._history: list[Message] = list(task.messages)
        self._finished: list[Response] = []  # earlier turns, where the template rewrites them

    async def play(self) -> Response | list[Response]:
        """All turns, until the episode is over or a limit is reached.

        Raises:
            SampleFailed: of the environment.
        """
        await self._begin()
        done = False
        while not done and self._counts.turns < self._rules.max_turns:
            turn = await self._speak()
            if turn.status is not Status.COMPLETED:
                break
            others = await self._answer(turn)
            done = not others
            if others and (self._counts.turns == self._rules.max_turns or not self._hear(turn, others)):
                break
        last = self._response(None if done else Status.TRUNCATED)
        return [*self._with_counts(self._finished), *self._with_counts([last])] if self._finished else last

    async def _begin(self) -> None:
        """Have the environment speak first. What the template writes up to the model's turn belongs to the response."""
        if self._player is None:
            return
        first = await self._player.reset(self._task)
        self._history += first
        text = self._engine.render(self._history)
        if not text.startswith(self._task.prompt_text):
            found = f"a chat template that writes the prompt otherwise when another message follows: {text[:80]!r}"
            raise SampleFailed(f"found {found}; wanted one that writes one message after the other")
        tokens = self._engine.encode(text[len(self._task.prompt_text) :])
        if len(tokens) >= self._task.sampling.max_response_tokens:
            limit = f"fewer than {self._task.sampling.max_response_tokens} (rollout.max_response_tokens)"
            raise SampleFailed(f"found {len(tokens)} tokens before the model's first turn; wanted {limit}")
        if tokens:
            self._append(Heard(tokens, first[-1]["role"] if first else "template"))

    async def _speak(self) -> Turn:
        said = [token for part in self._parts for token in part.tokens]
        left = self._task.sampling.max_response_tokens - len(said)
        params = replace(self._task.sampling, max_response_tokens=left)
        turn = await self._engine.generate([*self._task.prompt_tokens, *said], params)
        self._counts.turns += 1
        self._append(turn)
        return turn

    async def _answer(self, turn: Turn) -> Sequence[Message]:
        """What the others say to it; nothing: the episode is over."""
        calls = self._rules.calls_in(self._text(turn)) if self._rules.tools is not None else []
        if calls and self._rules.tools is not None:
            results = await asyncio.gather(*(self._rules.tools.call(one) for one in calls))
            self._counts.tool_calls += len(calls)
            self._counts.tool_errors += sum(text.startswith(ERROR) for text in results)
            pairs = enumerate(zip(calls, results, strict=True))
            return [_result(f"call{number:05d}", one.name or "unknown", text) for number, (one, text) in pairs]
        if self._player is None:
            return ()
        step = await self._player.step(turn.text)
        self._counts.rewards.append(step.reward)
        self._rewards[-1] = step.reward
        return [{**one, "content": _clean(one["content"])} for one in step.messages]

    def _hear(self, turn: Turn, others: Sequence[Message]) -> bool:
        """Append what others said; False: there is no room for it and for a token of the model's."""
        if self._rules.splits and self._rewrites(turn, others):
            return self._begin_anew()
        said = [token for part in self._parts for token in part.tokens]
        tokens = self._engine.after(said, others)
        if len(said) + len(tokens) >= self._task.sampling.max_response_tokens:
            return False
        self._append(Heard(tokens, others[-1]["role"]))
        return True

    def _rewrites(self, turn: Turn, others: Sequence[Message]) -> bool:
        """Whether the template now writes the past in another way than the model saw it and said it."""
        own = self._text(turn)
        before = [token for part in self._parts[:-1] for token in part.tokens]
        seen = self._engine.decode([*self._task.prompt_tokens, *before], special=True) + own
        self._history += [{"role": "assistant", "content": own}, *others]
        return not self._engine.render(self._history).startswith(seen)

    def _begin_anew(self) -> bool:
        """Finish the sample, and begin another whose past is what the template writes now."""
        text = self._engine.render(self._history)
        if not text.startswith(self._task.prompt_text):
            found = "a chat template that rewrites the prompt itself"
            raise SampleFailed(f"found {found}; wanted one that only rewrites turns (rollout.rewritten_past)")
        tokens = self._engine.encode(text[len(self._task.prompt_text) :])
        if len(tokens) >= self._task.sampling.max_response_tokens:
            return False
        self._finished.append(self._response(None))
        self._parts, self._rewards = [], []
        self._append(Heard(tokens, "past"))
        return True

    def _append(self, part: Turn | Heard) -> None:
        self._parts.append(part)
        self._rewards.append(None)

    def _text(self, turn: Turn) -> str:
        """What the model said, with the special tokens that calls may be marked by, without the one that ended it."""
        ended = bool(turn.tokens) and turn.tokens[-1] in self._task.sampling.stop_token_ids
        return self._engine.decode(turn.tokens[:-1] if ended else turn.tokens, special=True)

    def _response(self, status: Status | None) -> Response:
        """The sample as it stands. None: its status is that of the last turn."""
        made = Response.of(*self._parts)
        turns = tuple(replace(one, reward=reward) for one, reward in zip(made.turns, self._rewards, strict=True))
        if status is None or made.status is not Status.COMPLETED:
            status = made.status
        return self._with_counts([replace(made, turns=turns, status=status)])[0]

    def _with_counts(self, responses: Sequence[Response]) -> list[Response]:
        return [replace(one, extra={"episode": vars(self._counts).copy()}) for one in responses]


def _result(call: str, name: str, text: str) -> Message:
    """A tool's answer, with all that chat templates ask for."""
    return {"role": "tool", "name": name, "tool_call_id": call, "content": _clean(text)}


def _clean(text: str) -> str:
    """Text that can be encoded: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
