from __future__ import annotations

import math

import pytest

from core.batch import TooManyFailures, check_failures, make_batch, pass_rates, rollout_metrics
from core.config.schema import AlgorithmConfig
from core.samples import Prompt, Sample, Status


def sample(group: int, index: int, reward: float | None, length: int = 3, failure: str | None = None) -> Sample:
    prompt = Prompt(row=group, text="p", tokens=(1, 2), label="x")
    status = Status.FAILED if reward is None else Status.COMPLETED
    tokens = list(range(length))
    return Sample(group, index, prompt, tokens, [-1.0] * length, status, "step0", reward=reward, failure=failure)


def test_a_failed_sample_trains_nothing_and_shifts_nobody() -> None:
    samples = [sample(0, 0, 1.0), sample(0, 1, None, failure="hung"), sample(0, 2, 0.0)]
    batch = make_batch(samples, AlgorithmConfig(grpo_std_normalization=False))
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
        "reward (or raise the share), then resume: nothing before this step is lost."
    )


def test_rollout_metrics() -> None:
    samples = [sample(0, 0, 1.0, 2), sample(0, 1, 1.0, 4), sample(1, 0, 0.0, 6), sample(1, 1, None, 8)]
    samples[0].status = Status.TRUNCATED
    metrics = rollout_metrics(samples)
    assert metrics["rollout/raw_reward"] == pytest.approx(2 / 3)
    assert metrics["rollout/response_len/mean"] == 5
    assert (metrics["rollout/response_len/min"], metrics["rollout/response_len/max"]) == (2, 8)
    assert metrics["rollout/truncated_ratio"] == metrics["rollout/failed_ratio"] == 0.25
    assert metrics["rollout/zero_std/count"] == 2
    assert metrics["rollout/repetition_frac"] == 0


def test_repetition_is_seen_at_the_end_of_a_response() -> None:
    looping = sample(0, 0, 0.0)
    looping.response_tokens = [9, *(list(range(32)) * 2)]
    assert rollout_metrics([looping, sample(0, 1, 0.0, 80)])["rollout/repetition_frac"] == 0.5


def test_pass_rates() -> None:
    samples = [sample(0, 0, 1.0), sample(0, 1, 0.0), sample(1, 0, None), sample(1, 1, 0.0)]
    assert pass_rates(samples) == {"accuracy": 0.25, "pass@2": 0.5}
    assert pass_rates([sample(0, 0, 1.0)]) == {"accuracy": 1.0}


def test_metrics_of_a_step_in_which_nothing_was_scored() -> None:
    assert math.isnan(rollout_metrics([sample(0, 0, None)])["rollout/raw_reward"])
