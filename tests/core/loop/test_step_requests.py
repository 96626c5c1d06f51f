"""What each step asks for: which rows, under which seeds and settings."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Any

import pytest

from core.config.sections.rollout import RolloutConfig
from core.data import PromptSource
from core.loop.state import LoopState
from core.loop.step_requests import TrainRequests, weight_version
from core.rollout.carried import Carried, CarryOver, Origin, is_unfinished
from core.rollout.generate import group_request
from core.rollout.request import Generated, Request
from core.rollout.seeds import sample_seed
from core.samples import Prompt, Sample, SamplingParams, Status

NUM_ROWS = 12
BATCH = 4  # prompts of a step
GROUP = 3  # samples of a prompt
SETTINGS = {"max_response_tokens": 17, "temperature": 0.7, "top_p": 0.9, "top_k": 40}


def requests(shuffle: bool = True, **changes: Any) -> TrainRequests:
    """The requests of a run over twelve rows; every setting differs from its default, so that none can be forgotten."""
    prompts = [Prompt(row, f"row {row}", (row, 1), str(row)) for row in range(NUM_ROWS)]
    shape = {"num_rollout": 9, "rollout_batch_size": BATCH, "n_samples_per_prompt": GROUP}
    config = RolloutConfig(**{**shape, **SETTINGS, "seed": 5, "stop_token_ids": (), **changes})
    return TrainRequests(config, PromptSource(prompts, 0, shuffle, seed=3), stop_token_ids=(2, 9))


def steps(asked: TrainRequests, count: int) -> list[Request]:
    """The requests of a run's first steps, the state carried on as the loop carries it."""
    made, state = [], LoopState()
    for _ in range(count):
        made.append(asked(state, weight_version(state.next_step)))
        state = state.after_step(len(made[-1].prompts))
    return made


def rows(request: Request) -> list[int]:
    return [prompt.row for prompt in request.prompts]


def test_without_shuffling_each_step_takes_the_rows_after_those_of_the_last() -> None:
    found = [rows(request) for request in steps(requests(shuffle=False), 4)]
    assert found == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [0, 1, 2, 3]]


def test_steps_cover_each_epoch_and_share_no_row_within_it() -> None:
    found = [rows(request) for request in steps(requests(), 6)]
    for epoch in (found[:3], found[3:]):
        assert sorted(chain(*epoch)) == list(range(NUM_ROWS))
    assert found[:3] != found[3:], "each epoch has an order of its own"


def test_a_batch_may_span_two_epochs() -> None:
    found = list(chain(*(rows(request) for request in steps(requests(rollout_batch_size=5), 5))))
    assert sorted(found[:NUM_ROWS]) == sorted(found[NUM_ROWS : 2 * NUM_ROWS]) == list(range(NUM_ROWS))


def test_over_sampling_draws_more_rows_and_says_how_many_are_trained() -> None:
    found = steps(requests(shuffle=False, over_sampling_batch_size=6), 2)
    assert [rows(request) for request in found] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert [request.num_trained for request in found] == [BATCH, BATCH]


def test_a_step_draws_the_rows_after_its_own_if_too_few_pass_and_the_next_step_those_after_them() -> None:
    asked = requests(shuffle=False, over_sampling_batch_size=5, filter="nonzero_std", filter_rounds=2)
    request = asked(LoopState(data_position=1), "v")
    more = request.more(len(request.prompts))
    assert [prompt.row for prompt in (*request.prompts, *more)] == [*range(1, 11)]
    assert request.more(10) == [], "it has drawn as often as it may"
    seeds = {request.sampling(group, 0).seed for group in range(10)}
    assert len(seeds) == 10
    made = Generated([*request.prompts, *more])
    assert rows(asked(LoopState(data_position=1).after(made), "v"))[0] == 11
    assert requests()(LoopState(), "v").more(BATCH) == []


CARRY = {"over_sampling_batch_size": 6, "carry_over_tokens": 4, "carry_over_steps": 2}


def begun_before() -> tuple[LoopState, Sample]:
    """A state with two groups, of which the last sample is not complete; and that sample of the first."""
    prompt = Prompt(-1, "", (), None)
    done = [Sample(0, index, prompt, [7], [-1.0], Status.COMPLETED, "step1", reward=1.0) for index in range(GROUP - 1)]
    begun = [Sample(0, 2, prompt, [7, 8], [-1.0, -2.0], Status.ABORTED, "step1") for _ in range(2)]
    origins = (Origin(4, 1, 5), Origin(8, 2, 1))
    groups = (Carried(origin, (*done, one)) for origin, one in zip(origins, begun, strict=True))
    return LoopState(3, 10, tuple(groups)), begun[0]


@pytest.mark.parametrize(
    "change",
    [{"n_samples_per_prompt": 2}, {"max_response_tokens": 2}, {"generate": "mine.py:f", "carry_over_tokens": None}],
    ids=["number of samples", "shorter", "another function"],
)
def test_what_no_longer_fits_the_run_file_begins_anew_in_its_place(change: dict[str, Any]) -> None:
    state, _ = begun_before()
    kept, changed = requests(shuffle=False, **CARRY), requests(shuffle=False, **{**CARRY, **change})
    assert list(kept(state, "v").begun) == [0, 1]
    request = changed(state, "v")
    assert request.begun == {}
    assert rows(request) == [4, 8, 10, 11, 0, 1]
    assert [task.prompt_tokens for task in request.tasks(0)] == [request.prompts[0].tokens] * request.num_samples
    assert request.sampling(0, 1).seed == sample_seed(5, "train", 1, 5, 1)


def test_what_an_earlier_step_has_begun_comes_first_with_its_row_and_seeds_and_new_groups_fill_up() -> None:
    asked = requests(shuffle=False, **CARRY)
    state, begun = begun_before()
    request = asked(state, "v")
    assert rows(request) == [4, 8, 10, 11, 0, 1]
    assert request.carry == CarryOver(4, 2)
    assert request.sampling(0, 2).seed == sample_seed(5, "train", 1, 5, 2)
    assert request.sampling(2, 2).seed == sample_seed(5, "train", 3, 2, 2)
    assert [request.origin_of(group) for group in (1, 2)] == [Origin(8, 2, 1), Origin(10, 3, 2)]
    request = replace(request, begun={0: [one for one in request.begun[0] if is_unfinished(one)]})
    (task,) = request.tasks(0)
    assert task.prompt_tokens == (*request.prompts[0].tokens, 7, 8)
    assert (task.index, task.sampling.max_response_tokens) == (2, 4)
    assert [one.sampling.max_response_tokens for one in request.tasks(3)] == [4] * GROUP
    begun.response_tokens += [0] * 13
    assert request.tasks(0)[0].sampling.max_response_tokens == 2, "no more than is left of the whole response"
    assert state.after(Generated(list(request.prompts), step=3, origins=[request.origin_of(g) for g in range(6)])) == (
        LoopState(4, 14)
    )


def test_rows_come_from_the_position_and_not_from_the_step() -> None:
    """A run that was resumed with another batch size has a position that is no multiple of it."""
    assert rows(requests(shuffle=False)(LoopState(next_step=7, data_position=2), "v")) == [2, 3, 4, 5]


def test_key_version_and_number_of_samples() -> None:
    found = [(request.key, request.weight_version, request.num_samples) for request in steps(requests(), 3)]
    assert found == [(f"train/{step}", f"step{step}", GROUP) for step in range(3)]


def test_every_sampling_setting_of_the_run_file_reaches_the_engine() -> None:
    wanted = SamplingParams(**SETTINGS, stop_token_ids=(2, 9), seed=sample_seed(5, "train", 6, 2, 1))
    assert requests()(LoopState(next_step=6), "v").sampling(2, 1) == wanted


def test_no_two_samples_of_a_run_have_one_seed() -> None:
    groups = [group_request(request.tasks(g)) for request in steps(requests(), 8) for g in range(BATCH)]
    seeds = [params.seed for group in groups for params in group.params]
    assert len(set(seeds)) == len(seeds) == 8 * BATCH * GROUP


def test_a_group_asks_its_prompt_for_each_of_its_samples() -> None:
    request = requests()(LoopState(next_step=1, data_position=4), "v")
    for number, prompt in enumerate(request.prompts):
        group = group_request(request.tasks(number))
        assert group.prompt_tokens == prompt.tokens
        assert list(group.params) == [request.sampling(number, index) for index in range(GROUP)]
        assert {(task.row, task.step, task.group, task.evaluation) for task in request.tasks(number)} == {
            (prompt.row, 1, number, "")
        }


def test_a_repeated_step_asks_for_the_same() -> None:
    state = LoopState(next_step=4, data_position=16)
    first, again = requests()(state, "v"), requests()(state, "v")
    first_groups, groups = ([request.tasks(g) for g in range(BATCH)] for request in (first, again))
    assert groups == first_groups
    assert replace(again, sampling=first.sampling, more=first.more, origin=first.origin) == first


@pytest.mark.parametrize("seed", [0, 6])
def test_another_seed_of_the_run_changes_samples_and_not_rows(seed: int) -> None:
    state = LoopState(next_step=2, data_position=8)
    ours, other = requests()(state, "v"), requests(seed=seed)(state, "v")
    assert rows(ours) == rows(other)
    pairs = [(g, i) for g in range(BATCH) for i in range(GROUP)]
    assert not {ours.sampling(*pair).seed for pair in pairs} & {other.sampling(*pair).seed for pair in pairs}
