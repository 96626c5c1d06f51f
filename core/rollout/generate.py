"""How a group is answered: what the rounds of a rollout call, and the built-in, one request for whole groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from types import TracebackType
from typing import Any, Protocol, Self

from core.rollout.claims import Width, engine_width
from core.rollout.task import Task
from core.samples import FlatRouting, Span, Status
from core.sglang.client import EngineClient
from core.sglang.generation import GroupRequest


@dataclass(frozen=True)
class Answer:
    """One sample of a task, not yet scored; or, with `failure`, why there is none.

    `tokens`, `logprobs` and `loss_mask` have the same length; an empty mask: all 1.
    """

    task: int  # index of the task within its group
    tokens: list[int]
    logprobs: list[float]
    status: Status
    weight_version: str
    loss_mask: list[int] = field(default_factory=list)
    extra: Mapping[str, Any] = field(default_factory=dict)  # for the reward's metadata
    failure: str | None = None
    turns: Sequence[Span] = ()
    routing: FlatRouting | None = field(default=None, compare=False)  # the engine's experts, from the prompt on


class GroupGenerator(Protocol):
    """Answers groups. Open (`with`) on the ranks that drive engines; called from any event loop."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def width(self, num_groups: int, num_engines: int, in_flight: int, may_wait: bool, /) -> Width:
        """How many groups one engine is given; arguments as of `engine_width`."""
        ...

    async def __call__(self, groups: Sequence[Sequence[Task]], engine: EngineClient) -> list[list[Answer]]:
        """The samples of each group, in order of its tasks. Every task has at least one answer.

        Raises:
            EngineDied: the groups are to be made again, by another engine.
        """
        ...


class OneTurn:
    """The built-in: the model answers each prompt once. Groups of one call go to the engine in one request."""

    with_routing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def width(self, num_groups: int, num_engines: int, in_flight: int, may_wait: bool, /) -> Width:
        return engine_width(num_groups, num_engines, in_flight, may_wait=may_wait)

    async def __call__(self, groups: Sequence[Sequence[Task]], engine: EngineClient) -> list[list[Answer]]:
        parts = [list(part) for tasks in groups for _, part in groupby(tasks, lambda task: task.prompt_tokens)]
        answers = await engine.generate_groups([group_request(part, self.with_routing) for part in parts])
        made = (
            Answer(task.index, one.tokens, one.logprobs, one.status, one.weight_version, routing=one.routing)
            for part, group in zip(parts, answers, strict=True)
            for task, one in zip(part, group, strict=True)
        )
        return [[next(made) for _ in tasks] for tasks in groups]


class RoutedTurn(OneTurn):
    """The same, and in training engines are asked for their experts, too."""

    with_routing = True


def group_request(tasks: Sequence[Task], with_routing: bool = False) -> GroupRequest:
    """What an engine is asked for the tasks of one group; all begin behind the same tokens."""
    wanted = with_routing and not tasks[0].evaluation
    return GroupRequest(tasks[0].prompt_tokens, [task.sampling for task in tasks], wanted)
