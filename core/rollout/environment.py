"""Environments: who answers the model in a dialogue, and rewards what it does."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from core.processes.user_process import short
from core.rollout.limits import OutOfTime, limited
from core.rollout.places import describe, place_of, raised_at
from core.rollout.task import SampleFailed, Task

Message = Mapping[str, Any]
Observation = str | Sequence[Message] | None
STEP = "(observation, reward, done): text or messages, a finite number or None, and True or False"


class Environment(Protocol):
    """What stands in `rollout.environment`. An object is made for each episode; both methods may be coroutines."""

    def reset(self, task: Task) -> Observation | Awaitable[Observation]:
        """Begin the episode of this task.

        Returns:
            what is said after the prompt and before the model's first turn: text, which is the user's, or chat
            messages; None: nothing.
        """
        ...

    def step(self, action: str) -> tuple[Observation, float | None, bool] | Awaitable[Any]:
        """Answer what the model said.

        Returns:
            (observation, reward, done): what is said next, read as that of `reset`, and only if the episode goes on;
            what the action earns, None: nothing is said of it; whether the episode is over.
        """
        ...


@dataclass(frozen=True)
class Step:
    """What an environment made of an action."""

    messages: Sequence[Message]
    reward: float | None
    done: bool


class Player:
    """The environment of one episode, held to its time limit and to what it has to give."""

    def __init__(self, environment: Environment, timeout_s: float) -> None:
        self._environment = environment
        self._timeout_s = timeout_s

    async def reset(self, task: Task) -> Sequence[Message]:
        """The messages before the first turn.

        Raises:
            SampleFailed: it raised, took too long, or gave something else.
        """
        return _messages(self._environment.reset, await self._call("reset", task))

    async def step(self, action: str) -> Step:
        """What it makes of an action.

        Raises:
            SampleFailed: as above.
        """
        function = self._environment.step
        made = await self._call("step", action)
        if not isinstance(made, tuple) or len(made) != 3 or made[2] not in (True, False):
            raise _misfit(function, made, STEP)
        observation, reward, done = made
        number = _number(function, reward)
        if done:
            return Step((), number, True)
        messages = _messages(function, observation)
        if not messages:
            raise _misfit(function, observation, "something for the model to answer, as done is False")
        return Step(messages, number, False)

    async def _call(self, name: str, argument: Any) -> Any:
        function = getattr(self._environment, name)
        try:
            return await limited(function, self._timeout_s, argument)
        except OutOfTime as error:
            where = raised_at(error.__cause__ or error, place_of(function))
            why = f"no answer of the environment within {self._timeout_s:g} s (rollout.call_timeout_s): at {where}"
            raise SampleFailed(why) from error
        except Exception as error:
            raise SampleFailed(describe(error, place_of(function))) from error


def _misfit(function: Any, found: Any, wanted: str) -> SampleFailed:
    return SampleFailed(f"found {short(repr(found))}; wanted {wanted} ({place_of(function)})")


def _number(function: Any, reward: Any) -> float | None:
    if reward is None:
        return None
    try:
        number = float("nan") if isinstance(reward, str | bytes) else float(reward)
    except (TypeError, ValueError):
        number = float("nan")
    if not math.isfinite(number):
        raise _misfit(function, reward, "a finite reward, or None")
    return number


def _messages(function: Any, observation: Any) -> Sequence[Message]:
    if observation is None or observation == "":
        return ()
    if isinstance(observation, str):
        return [{"role": "user", "content": observation}]
    if not isinstance(observation, list | tuple) or not all(_is_of_others(one) for one in observation):
        wanted = "text, or a list of messages with role and content, none of them the assistant's"
        raise _misfit(function, observation, wanted)
    return observation


def _is_of_others(message: Any) -> bool:
    if not isinstance(message, Mapping):
        return False
    role, content = message.get("role"), message.get("content")
    return isinstance(role, str) and role not in ("", "assistant") and isinstance(content, str)
