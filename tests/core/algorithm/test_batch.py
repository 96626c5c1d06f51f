from __future__ import annotations

import math
from dataclasses import replace

import pytest

from core.algorithm.advantages.none import NoAdvantage
from core.algorithm.batch import TooManyFailures, check_failures, make_batch, rollout_metrics
from core.algorithm.estimate import build_advantages
from core.algorithm.rates import evaluation_rates
from core.config.sections.algorithm import AlgorithmConfig
from core.samples import Prompt, Sample, Status, TrainSample


def sample(group: int, index: int, reward: float | None, length: int = 3, failure: str | None = None) -> Sample:
    prompt = Prompt(row=group, text="p", tokens=(1, 2), label="x")
    status = Status.FAILED if reward is None else Status.COMPLETED
    tokens = list(range(length))
    return Sample(group, index, prompt, tokens, [-1.0] * length, status, "step0", reward=reward, failure=failure)


def test_a_failed_sample_trains_nothing_and_shifts_nobody() -> None:
    samples = [sample(0, 0, 1.0), sample(0, 1, None, failure="hung"), sample(0, 2, 0.0)]
    batch = make_batch(samples, build_advantages(AlgorithmConfig(grpo_std_normalization=False)))
    assert batch.advantages == pytest.approx([0.5, 0.0, -0.5])
    assert [s.loss_mask for s in batch.train_samples()] == [[1] * 3, [0] * 3, [1] * 3]


def test_failures_are_tolerated_up_to_the_limit_and_then_named() -> None:
    samples = [sample(0, i, 1.0) for i in range(8)] + [
        sample(1, 0, None, failure="hung"),
        sample(1, 1, None, failure="NaN"),
    ]
    check_failures(samples, 0.2)
    with pytest.raises(TooManyFailures) as caught:
        check_failures([*samples, sample(1, 2, None, failure="hung")], 0.2)
    assert str(caught.value) == (
        "3 of 11 samples could not be scored (27%), more than reward.max_failed_share = 20%: 2x hung; 1x NaN. Mend the "
        "reward, or the generation (or raise the share), then resume: nothing before this step is lost."
    )


@pytest.mark.parametrize("on_policy", [True, False])
def test_samples_of_older_weights_bring_the_log_probs_that_the_loss_takes_as_old(on_policy: bool) -> None:
    samples = [sample(0, 0, 1.0, length=2), sample(0, 1, 0.0, length=4)]
    batch = make_batch(samples, build_advantages(AlgorithmConfig()), on_policy=on_policy)
    wanted = [None, None] if on_policy else [[-1.0] * 2, [-1.0] * 4]
    assert [one.logprobs_old for one in batch.train_samples()] == wanted


@pytest.mark.parametrize("hundredths", range(101))
def test_a_share_that_is_just_reached_is_no_failure(hundredths: int) -> None:
    """0.29 x 100 is a little below 29 in floating point."""
    samples = [sample(0, i, None if i < hundredths else 1.0, failure="hung") for i in range(100)]
    check_failures(samples, hundredths / 100)
    if hundredths:
        with pytest.raises(TooManyFailures, match=f"{hundredths} of 100 samples"):
            check_failures(samples, hundredths / 100 - 0.005)


def test_the_three_commonest_reasons_are_named() -> None:
    reasons = [*"a" * 2, *"b" * 4, *"c", *"d" * 3]
    with pytest.raises(TooManyFailures, match=r"4x b; 3x d; 2x a\. Mend"):
        check_failures([sample(0, i, None, failure=reason) for i, reason in enumerate(reasons)], 0.5)


def test_the_trainer_gets_each_sample_with_its_own_advantage() -> None:
    """Groups of two, out of order; every list of a sample is told from those of the others by its length."""
    samples = [sample(g, i, reward, length=3 + n) for n, (g, i, reward) in enumerate(SCORED)]
    for number, one in enumerate(samples):
        one.prompt = Prompt(row=number, text="p", tokens=(number, 7), label="x")
        one.loss_mask[-1] = 0
    half, one_and_half = 0.5**0.5, 1.5
    wanted = {True: [half, half, -half, -half], False: [0.5, one_and_half, -0.5, -one_and_half]}
    for std, advantages in wanted.items():
        found = make_batch(samples, build_advantages(AlgorithmConfig(grpo_std_normalization=std))).train_samples()
        assert found == [
            TrainSample(
                group=one.group,
                prompt_tokens=[number, 7],
                response_tokens=list(range(3 + number)),
                loss_mask=[1] * (2 + number) + [0],
                advantage=pytest.approx(advantages[number], abs=1e-5),
                logprobs_engine=[-1.0] * (3 + number),
                task=one.task,
                reward=one.reward,
            )
            for number, one in enumerate(samples)
        ]


SCORED = [(1, 0, 1.0), (0, 0, 3.0), (1, 1, 0.0), (0, 1, 0.0)]  # group, index, reward


def test_rollout_metrics() -> None:
    samples = [sample(0, 0, 1.0, 2), sample(0, 1, 1.0, 4), sample(1, 0, 0.0, 6), sample(1, 1, None, 8)]
    samples[0].status = Status.TRUNCATED
    metrics = rollout_metrics(samples)
    assert metrics["rollout/raw_reward"] == pytest.approx(2 / 3)
    assert metrics["rollout/raw_reward/std"] == pytest.approx(math.sqrt(2) / 3)  # of 1, 1 and 0
    assert (metrics["rollout/raw_reward/min"], metrics["rollout/raw_reward/max"]) == (0, 1)
    assert metrics["rollout/response_len/mean"] == 5
    assert (metrics["rollout/response_len/min"], metrics["rollout/response_len/max"]) == (2, 8)
    assert metrics["rollout/truncated_ratio"] == metrics["rollout/failed_ratio"] == 0.25
    assert metrics["rollout/response_len/median"] == 6
    assert metrics["rollout/response_tokens"] == 2 + 4 + 6 + 8
    assert metrics["rollout/zero_std/count"] == 2
    assert metrics["rollout/repetition_frac"] == 0


def test_means_of_what_rewards_were_made_of() -> None:
    samples = [sample(0, 0, 1.0), sample(0, 1, 0.0), sample(0, 2, None)]
    samples[0].reward_parts, samples[1].reward_parts = {"right": 1.0, "brief": 0.5}, {"right": 0.0}
    metrics = rollout_metrics(samples)
    assert {name: value for name, value in metrics.items() if name.startswith("rollout/reward/")} == {
        "rollout/reward/brief": 0.5,
        "rollout/reward/right": 0.5,
    }
    assert evaluation_rates(samples)["reward/right"] == 0.5


def test_repetition_is_seen_at_the_end_of_a_response() -> None:
    looping = sample(0, 0, 0.0)
    looping.response_tokens = [9, *(list(range(32)) * 2)]
    assert rollout_metrics([looping, sample(0, 1, 0.0, 80)])["rollout/repetition_frac"] == 0.5


@pytest.mark.parametrize(
    ("tokens", "repeats"),
    [
        (list(range(32)) * 2, True),
        (list(range(32)) * 2 + [5], False),
        ([5] * 64, True),
        ([5] * 63, False),
        ([*range(31), 99, *range(32)], False),
        ([], False),
    ],
    ids=["just so", "it went on", "one token", "too short", "one differs", "empty"],
)
def test_what_counts_as_repetition(tokens: list[int], repeats: bool) -> None:
    one = sample(0, 0, 0.0)
    one.response_tokens = tokens
    assert rollout_metrics([one])["rollout/repetition_frac"] == repeats


def test_groups_without_spread_are_counted_over_their_scored_samples() -> None:
    rewards = {0: [1.0, 1.0], 1: [1.0, 0.0], 2: [0.0, None], 3: [None, None], 4: [0.0, 0.0]}
    samples = [sample(group, i, reward) for group, both in rewards.items() for i, reward in enumerate(both)]
    assert rollout_metrics(samples)["rollout/zero_std/count"] == 3


def test_groups_that_are_all_right_or_all_wrong_are_told_apart() -> None:
    """A reward above 0.5 is right; a group without any reward is neither."""
    rewards = {0: [1.0, 0.7], 1: [1.0, 0.5], 2: [0.5, -1.0], 3: [None, None], 4: [0.0, None]}
    samples = [sample(group, i, reward) for group, both in rewards.items() for i, reward in enumerate(both)]
    metrics = rollout_metrics(samples)
    assert (metrics["rollout/solve_all/ratio"], metrics["rollout/solve_none/ratio"]) == (1 / 5, 2 / 5)


def test_metrics_of_a_step_in_which_nothing_was_scored() -> None:
    assert math.isnan(rollout_metrics([sample(0, 0, None)])["rollout/raw_reward"])


def test_a_sample_that_a_row_gave_takes_part_without_a_reward() -> None:
    given = [replace(sample(0, 0, None), status=Status.GIVEN, failure=None)]
    check_failures(given, 0.0)
    batch = make_batch(given, NoAdvantage())
    assert batch.train_samples()[0].loss_mask == given[0].loss_mask
    assert list(batch.advantages) == [1.0]
    metrics = rollout_metrics(given)
    assert "rollout/raw_reward" not in metrics
    assert metrics["rollout/failed_ratio"] == 0


def test_turns_and_calls_are_told_of_episodes_alone() -> None:
    samples = [sample(0, index, 1.0) for index in range(4)]
    assert not any(name.startswith(("rollout/turns", "rollout/tool_calls")) for name in rollout_metrics(samples))
    samples[0].episode = {"turns": 3, "tool_calls": 4, "tool_errors": 1}
    samples[1].episode = {"turns": 1, "tool_calls": 0, "tool_errors": 0}
    told = {name.removeprefix("rollout/"): value for name, value in rollout_metrics(samples).items()}
    assert (told["turns/mean"], told["turns/max"], told["tool_calls/mean"]) == (2, 3, 2)
    assert (told["tool_calls/error_ratio"], told["tool_calls/none_ratio"]) == (0.25, 0.5)


def test_an_episode_is_valid_if_it_made_calls_and_none_failed() -> None:
    samples = [sample(0, index, 1.0) for index in range(4)]
    for one, calls, errors in zip(samples, (2, 1, 0, 2), (0, 0, 0, 1), strict=True):
        one.episode = {"turns": 2, "tool_calls": calls, "tool_errors": errors}
    assert rollout_metrics(samples)["rollout/tool_calls/valid_ratio"] == 0.5
