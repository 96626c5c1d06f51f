"""What is said of an evaluation set."""

from __future__ import annotations

from itertools import combinations

import pytest

from core.algorithm.rates import evaluation_rates, majority_at, pass_at
from core.samples import Prompt, Sample, Status


def sample(group: int, index: int, reward: float | None, task: int = -1, tokens: int = 1) -> Sample:
    status = Status.TRUNCATED if tokens > 2 else Status.COMPLETED
    prompt = Prompt(group, "p", (1,), None)
    return Sample(group, index, prompt, [1] * tokens, [0.0] * tokens, status, "v", reward=reward, task=task)


def test_samples_and_prompts_are_counted() -> None:
    """Right is above a half; a sample that could not be scored is wrong, and has no part in the mean reward."""
    rewards = {3: [1.0, 1.0, 1.0], 5: [0.5, 0.4, None], 8: [0.51, 0.0, 0.0], 9: [None, None, None]}
    samples = [sample(group, i, reward) for group, three in rewards.items() for i, reward in enumerate(three)]
    assert evaluation_rates(samples) == {
        "accuracy": pytest.approx(4 / 12),
        "pass@2": pytest.approx((1 + 0 + 2 / 3 + 0) / 4),
        "pass@3": 0.5,
        "reward": pytest.approx(4.41 / 8),
        "response_len": 1,
        "truncated_ratio": 0,
    }


def test_one_sample_has_no_pass_rates_and_lengths_are_told() -> None:
    rates = evaluation_rates([sample(0, 0, 1.0, tokens=2), sample(1, 0, None, tokens=4)])
    assert rates == {"accuracy": 0.5, "reward": 1.0, "response_len": 3, "truncated_ratio": 0.5}
    assert "reward" not in evaluation_rates([sample(0, 0, None)])


def test_turns_and_valid_calls_are_told_of_dialogues() -> None:
    samples = [sample(group, 0, 1.0) for group in range(4)]
    for one, calls, errors in zip(samples, (1, 1, 0, 2), (0, 1, 0, 0), strict=True):
        one.episode = {"turns": 1 + calls, "tool_calls": calls, "tool_errors": errors}
    rates = evaluation_rates(samples)
    assert (rates["turns/mean"], rates["tool_calls/valid_ratio"]) == (2.0, 0.5)
    assert not {"tool_calls/mean", "turns/max"} & set(rates)


@pytest.mark.parametrize(("num_samples", "num_right"), [(8, 0), (8, 1), (8, 3), (5, 5), (6, 5)])
def test_pass_at_k_is_the_share_of_all_choices_of_k_with_a_right_one(num_samples: int, num_right: int) -> None:
    right = [place < num_right for place in range(num_samples)]
    for k in range(1, num_samples + 1):
        choices = list(combinations(right, k))
        assert pass_at(k, num_samples, num_right) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_several_samples_of_a_task_are_one_try() -> None:
    samples = [sample(0, 0, 0.0, task=0), sample(0, 1, 1.0, task=0), sample(0, 2, 0.0, task=1)]
    rates = evaluation_rates(samples)
    assert rates["pass@2"] == 1.0
    assert rates["accuracy"] == pytest.approx(1 / 3)


MAJORITIES = {
    "the commonest is right": (3, [("7", True), ("8", False), ("7", True)], 1.0),
    "the commonest is wrong": (3, [("7", True), ("8", False), ("8", False)], 0.0),
    "none has no vote": (4, [("7", True), (None, False), (None, False), (None, False)], 1.0),
    "nobody votes": (2, [(None, False), (None, True)], 0.0),
    "two share": (2, [("7", True), ("8", False)], 0.5),
    "twice two of five": (2, [("7", True), ("7", True), ("8", False), (None, False), ("7", True)], 0.5),
}


@pytest.mark.parametrize(("k", "votes", "wanted"), MAJORITIES.values(), ids=MAJORITIES)
def test_majority_at_k(k: int, votes: list[tuple[str | None, bool]], wanted: float) -> None:
    assert majority_at(k, votes) == wanted


def test_majorities_are_means_over_prompts_and_asked_for() -> None:
    """Of a task that made several samples the last one votes."""
    rewards = {0: [1.0, 0.0, 0.0, 0.0], 1: [1.0, 1.0, 0.0, 1.0]}
    samples = [sample(group, i, reward) for group, four in rewards.items() for i, reward in enumerate(four)]
    for one in samples:
        one.response_text = "7" if one.reward else str(one.index)
    samples.append(sample(0, 4, 1.0, task=1))
    samples[-1].response_text = "7"
    rates = evaluation_rates(samples, lambda text: text)
    assert (rates["maj@2"], rates["maj@4"]) == (((1 + 0) / 2 + (1 + 0.5) / 2) / 2, 1.0)
    assert not any(name.startswith("maj") for name in evaluation_rates(samples))
