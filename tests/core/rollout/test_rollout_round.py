"""Who is asked for which groups: requests of one group, of several, and after an engine's death."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from core.engines.roster import Engine
from core.processes.rendezvous import Rendezvous
from core.reward import Score
from core.rollout.claims import Width, engine_width
from core.rollout.rollout import WAIT_TOKENS, Request, Rollout
from core.samples import Prompt, SamplingParams, Status
from core.sglang.errors import EngineDied
from core.sglang.generation import Generation, GroupRequest

GROUP_SIZE = 4


class StandIn:
    """An engine that answers, prompt first, after a turn of the event loop; `dies` with its n-th request."""

    def __init__(self, dies: int = -1) -> None:
        self.client = self
        self.asked: list[list[int]] = []
        self.dies = dies
        self.most_at_once = self.at_once = 0

    async def generate_groups(self, groups: Sequence[GroupRequest]) -> list[list[Generation]]:
        if len(self.asked) == self.dies:
            raise EngineDied("its process is gone")
        self.asked.append([group.prompt_tokens[0] for group in groups])
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        seeds = [[one.seed or 0 for one in group.params] for group in groups]
        return [[Generation([seed], [-1.0], Status.COMPLETED, "v") for seed in group] for group in seeds]


class Parts:
    """What a rollout is made of: real claims, nothing else real."""

    def __init__(self, store: Rendezvous, *engines: StandIn) -> None:
        self.store = store
        self.engines: list[Any] = [Engine(str(i), None, one) for i, one in enumerate(engines)]  # type: ignore[arg-type]
        self.synced = 0

    def rollout(self, max_running_requests: int) -> Rollout:
        any_self: Any = self
        return Rollout(self.store, any_self, any_self, any_self, any_self, max_running_requests, len(self.engines))

    def alive(self) -> list[Engine]:
        return [engine for engine in self.engines if engine.alive]

    def mark_dead(self, engine: Engine, _reason: EngineDied) -> None:
        engine.alive = False

    def push(self, _version: str) -> None:
        self.synced += 1

    def decode(self, tokens: Sequence[int]) -> str:
        return str(tokens[0])

    def submit(self, _sample: Any) -> Future[Score]:
        done: Future[Score] = Future()
        done.set_result(Score(1.0))
        return done


@pytest.fixture(autouse=True)
def one_rank(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def request(num_groups: int, max_response_tokens: int = 8) -> Request:
    def sampling(group: int, index: int) -> SamplingParams:
        return SamplingParams(max_response_tokens, seed=100 * group + index)

    prompts = [Prompt(group, str(group), (group,), "x") for group in range(num_groups)]
    return Request("train/0", prompts, GROUP_SIZE, sampling, "v")


def generated(rollout: Rollout, wanted: Request) -> list[tuple[int, int, int]]:
    made = rollout.generate(wanted)
    return sorted((sample.group, sample.index, sample.response_tokens[0]) for sample in made.samples)


def every_sample(num_groups: int) -> list[tuple[int, int, int]]:
    """Each with the token that its seed stands for."""
    return [(group, index, 100 * group + index) for group in range(num_groups) for index in range(GROUP_SIZE)]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((8, 1, 8), Width(1, 8)),
        ((8, 2, 8), Width(1, 4)),
        ((9, 2, 8), Width(1, 5)),
        ((64, 1, 8), Width(2, 4)),
        ((64, 1, 1), Width(1, 1)),
        ((1, 4, 16), Width(1, 1)),
    ],
    ids=["all-at-once", "shared-out", "rounded-up", "more-than-fit", "one-at-a-time", "fewer-than-engines"],
)
def test_width_of_short_responses(arguments: tuple[int, int, int], wanted: Width) -> None:
    found = engine_width(*arguments, may_wait=True)
    assert found == wanted
    assert found.requests * found.groups <= max(arguments[2], 1)


def test_long_responses_are_asked_for_group_by_group() -> None:
    assert engine_width(64, 2, 8, may_wait=False) == Width(8, 1)


def test_short_groups_that_fit_share_a_request(store: Rendezvous) -> None:
    engine = StandIn()
    assert generated(Parts(store, engine).rollout(32), request(8)) == every_sample(8)
    assert engine.asked == [list(range(8))]


def test_two_engines_get_half_each(store: Rendezvous) -> None:
    engines = StandIn(), StandIn()
    assert generated(Parts(store, *engines).rollout(32), request(8)) == every_sample(8)
    assert [engine.asked for engine in engines] == [[[0, 1, 2, 3]], [[4, 5, 6, 7]]]


def test_of_more_groups_than_fit_half_a_load_waits_while_the_other_is_answered(store: Rendezvous) -> None:
    engine = StandIn()
    assert generated(Parts(store, engine).rollout(32), request(19)) == every_sample(19)
    assert [len(groups) for groups in engine.asked] == [4, 4, 4, 4, 3]
    assert engine.most_at_once == 2


def test_long_groups_come_one_per_request_as_many_as_fit_at_a_time(store: Rendezvous) -> None:
    engine = StandIn()
    assert generated(Parts(store, engine).rollout(12), request(8, WAIT_TOKENS + 1)) == every_sample(8)
    assert engine.asked == [[group] for group in range(8)]
    assert engine.most_at_once == 3


def test_groups_of_a_request_that_an_engine_dies_with_are_made_by_the_other(store: Rendezvous) -> None:
    lives, dies = StandIn(), StandIn(dies=0)
    parts = Parts(store, lives, dies)
    assert generated(parts.rollout(32), request(8)) == every_sample(8)
    assert lives.asked == [[0, 1, 2, 3], [4, 5], [6, 7]]  # the other may come back, so half is left to it
    assert parts.synced == 1
