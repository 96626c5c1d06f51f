"""Who is asked for which groups: requests of one group, of several, and after an engine's death."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from core.config.sections.rollout import RolloutConfig
from core.engines.roster import Engine
from core.processes import keys
from core.processes.rendezvous import Rendezvous
from core.reward import RewardInput, Score
from core.rollout.claims import Width, engine_width
from core.rollout.group_filter import GroupFilter
from core.rollout.request import WAIT_TOKENS, Generated, Request
from core.rollout.rollout import PAUSE_LOOK_S, PauseAsked, Rollout
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


class Waiting(StandIn):
    """An engine that is asked, and answers when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.was_asked, self.may_answer = threading.Event(), threading.Event()

    async def generate_groups(self, groups: Sequence[GroupRequest]) -> list[list[Generation]]:
        self.was_asked.set()
        async with asyncio.timeout(60):
            while not self.may_answer.is_set():
                await asyncio.sleep(0.001)
        return await super().generate_groups(groups)


class Refusing(StandIn):
    """An engine that refuses what it is asked."""

    async def generate_groups(self, groups: Sequence[GroupRequest]) -> list[list[Generation]]:
        raise ValueError("no such token")


class Parts:
    """What a rollout is made of: real claims, nothing else real."""

    def __init__(self, store: Rendezvous, *engines: StandIn) -> None:
        self.store = store
        self.engines: list[Any] = [Engine(str(i), None, one) for i, one in enumerate(engines)]  # type: ignore[arg-type]
        self.pushed: list[str] = []

    def rollout(self, max_running_requests: int, group_filter: GroupFilter | None = None) -> Rollout:
        any_self: Any = self
        parts = (self.store, any_self, any_self, any_self, any_self, max_running_requests, len(self.engines))
        return Rollout(*parts, group_filter=group_filter)

    def alive(self) -> list[Engine]:
        return [engine for engine in self.engines if engine.alive]

    def mark_dead(self, engine: Engine, _reason: EngineDied) -> None:
        engine.alive = False

    def push(self, version: str) -> None:
        self.pushed.append(version)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(tokens[0])

    def submit(self, sample: RewardInput) -> Future[Score]:
        """Samples of a group get different rewards where its number is a multiple of 4."""
        done: Future[Score] = Future()
        done.set_result(Score(float(sample.index) if sample.group % 4 == 0 else 1.0))
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
    return sampled(rollout.generate(wanted))


def sampled(made: Generated) -> list[tuple[int, int, int]]:
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
    assert parts.pushed == ["v"]


def test_a_started_rollout_goes_on_while_the_caller_does_something_else(store: Rendezvous) -> None:
    engine = Waiting()
    rollout = Parts(store, engine).rollout(32)
    pending = rollout.start(request(8))
    assert engine.was_asked.wait(30), "it is asked before anybody waits for the answers"
    assert not engine.asked
    with pytest.raises(RuntimeError, match="started while train/0 is under way: finish that first"):
        rollout.start(request(1))
    engine.may_answer.set()
    assert sampled(pending.finish()) == every_sample(8)


def test_who_takes_over_after_an_update_gets_the_weights_of_now(store: Rendezvous) -> None:
    parts = Parts(store, StandIn(), StandIn(dies=0))
    assert sampled(parts.rollout(32).start(request(8)).finish("newer")) == every_sample(8)
    assert parts.pushed == ["newer"]


def test_what_goes_wrong_in_the_background_is_raised_when_it_is_finished(store: Rendezvous) -> None:
    pending = Parts(store, Refusing()).rollout(32).start(request(8))
    with pytest.raises(ValueError, match="no such token"):
        pending.finish()


class Endless(StandIn):
    """An engine that never answers, and has the run asked to pause as soon as it is asked."""

    def __init__(self, store: Rendezvous) -> None:
        super().__init__()
        self.store = store
        self.aborted = 0

    async def generate_groups(self, groups: Sequence[GroupRequest]) -> list[list[Generation]]:
        self.store.set(keys.PAUSE_ASKED, "stopped")
        await asyncio.sleep(600)
        raise AssertionError(groups)

    def abort(self) -> None:
        self.aborted += 1


def test_a_pause_breaks_off_a_rollout_and_the_engines_work(store: Rendezvous) -> None:
    engine = Endless(store)
    rollout = Parts(store, engine).rollout(8)
    with pytest.raises(PauseAsked, match="stopped"):
        rollout.generate(request(3))
    assert engine.aborted == 1


def test_a_pause_waits_for_nothing_where_all_groups_are_there(store: Rendezvous) -> None:
    store.set(keys.PAUSE_ASKED, "stopped")
    assert generated(Parts(store, StandIn()).rollout(8), request(3)) == every_sample(3)


def test_a_pause_breaks_off_nothing_that_an_update_may_lie_beside(store: Rendezvous) -> None:
    engine = Waiting()
    pending = Parts(store, engine).rollout(8).start(request(1))
    assert engine.was_asked.wait(60)
    store.set(keys.PAUSE_ASKED, "stopped")
    threading.Timer(2 * PAUSE_LOOK_S, engine.may_answer.set).start()
    assert sampled(pending.finish()) == every_sample(1)


def drawing(num_groups: int, num_trained: int, rounds: int) -> Request:
    """Draws its groups again, while there are rounds left."""

    def more(num_drawn: int) -> list[Prompt]:
        left = num_drawn < rounds * num_groups
        return [Prompt(row, str(row), (row,), "x") for row in range(num_drawn, num_drawn + num_groups)] if left else []

    return replace(request(num_groups), num_trained=num_trained, more=more)


def by_spread() -> GroupFilter:
    config = RolloutConfig(num_rollout=1, rollout_batch_size=1, filter="nonzero_std")
    return GroupFilter(config, max_failed_share=0.0, timeout_s=1.0)


@pytest.mark.parametrize(
    ("num_trained", "rounds", "num_drawn", "trained"),
    [(1, 3, 3, [0]), (2, 3, 6, [0, 4]), (4, 4, 12, [0, 1, 4, 8]), (2, 1, 3, [0, 1])],
    ids=["enough", "once more", "until the bound", "no further round"],
)
def test_more_groups_are_drawn_while_too_few_pass(
    num_trained: int, rounds: int, num_drawn: int, trained: list[int], store: Rendezvous
) -> None:
    """Groups 0, 4, 8, … pass. What is lacking at the bound is taken from the first rejected."""
    engine, group_filter = StandIn(), by_spread()
    rollout = Parts(store, engine).rollout(32, group_filter)
    made = rollout.generate(drawing(3, num_trained, rounds))
    assert made.num_drawn == num_drawn
    assert sorted(group for groups in engine.asked for group in groups) == list(range(num_drawn))
    samples = rollout.settle(made)
    assert [(sample.group, sample.index) for sample in samples] == [(g, i) for g in trained for i in range(GROUP_SIZE)]
    assert [sample.response_tokens for sample in samples] == [[100 * s.group + s.index] for s in samples]
    assert group_filter.take_counts()["rollout/filter/drawn"] == num_drawn


def test_groups_of_a_later_draw_outlive_their_engine(store: Rendezvous) -> None:
    parts = Parts(store, StandIn(), StandIn(dies=1))
    rollout = parts.rollout(32, by_spread())
    made = rollout.generate(drawing(4, 2, 3))
    assert made.num_drawn == 8
    assert [sample.group for sample in rollout.settle(made)] == [0] * GROUP_SIZE + [4] * GROUP_SIZE
    assert parts.pushed == ["v"]


def test_evaluations_draw_nothing_more(store: Rendezvous) -> None:
    rollout = Parts(store, StandIn()).rollout(32, by_spread())
    made = rollout.generate(replace(drawing(3, 2, 3), num_trained=None))
    assert len(rollout.settle(made)) == 3 * GROUP_SIZE
