"""Which groups are trained: exactly as many as asked for, the same whoever was done first, each rejection counted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from core.algorithm.batch import TooManyFailures
from core.config.sections.rollout import RolloutConfig
from core.reward import Score
from core.rollout.group_filter import GroupFilter
from core.rollout.request import Generated
from core.rollout.rollout import Rollout
from core.samples import Prompt, Sample, Status

PASSES, ALIKE, FAILED = [0.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0.5, 0.5, None]
SPREAD_WITH_A_FAILURE = [0.0, 1.0, None]


def drawn(*groups: list[float | None]) -> list[Sample]:
    """Samples of these groups with these rewards."""
    return [
        Sample(group, index, Prompt(group, "p", (1,), "x"), [1], [-1.0], Status.COMPLETED, "v", reward=reward)
        for group, rewards in enumerate(groups)
        for index, reward in enumerate(rewards)
    ]


def trained(
    samples: list[Sample], num_groups: int, max_failed_share: float = 1.0
) -> tuple[list[int], dict[str, float]]:
    """The groups chosen, in their order, and the counts without their common prefix."""
    group_filter = by("nonzero_std", max_failed_share)
    chosen = group_filter.choose(samples, group_filter.verdicts(samples, 0), num_groups)
    counts = {name.removeprefix("rollout/filter/"): value for name, value in group_filter.take_counts().items()}
    return sorted(chosen), counts


def by(name: str, max_failed_share: float = 1.0) -> GroupFilter:
    config = RolloutConfig(num_rollout=1, rollout_batch_size=1, filter=name)
    return GroupFilter(config, max_failed_share=max_failed_share, timeout_s=1.0)


def test_the_first_groups_that_pass_are_trained_whole() -> None:
    samples = drawn(ALIKE, PASSES, PASSES, ALIKE, PASSES)
    groups, counts = trained(samples, 2)
    assert groups == [1, 2]
    assert counts == {
        "drawn": 5,
        "passed": 3,
        "rejected/zero_std": 2,
        "rejected/failed": 0,
        "rejected_but_trained": 0,
        "surplus": 1,
    }


def test_rejected_groups_fill_the_step_those_without_failures_first() -> None:
    groups, counts = trained(drawn(FAILED, ALIKE, ALIKE, PASSES, ALIKE), 3)
    assert groups == [1, 2, 3]
    assert (counts["passed"], counts["rejected/zero_std"], counts["rejected/failed"]) == (1, 3, 1)
    assert (counts["rejected_but_trained"], counts["surplus"]) == (2, 0)


def test_a_step_in_which_nothing_passes_has_its_size_all_the_same() -> None:
    groups, counts = trained(drawn(ALIKE, ALIKE, FAILED), 2)
    assert groups == [0, 1]
    assert (counts["passed"], counts["rejected_but_trained"]) == (0, 2)


def test_a_difference_counts_whatever_else_failed() -> None:
    assert trained(drawn(ALIKE, SPREAD_WITH_A_FAILURE), 1)[0] == [1]


def test_failures_in_groups_that_are_left_out_are_not_overlooked() -> None:
    samples = drawn(PASSES, FAILED, FAILED)
    assert trained(samples, 1, max_failed_share=0.25)[0] == [0]
    with pytest.raises(TooManyFailures, match="2 of 9 samples"):
        trained(samples, 1, max_failed_share=0.2)


def test_without_a_filter_every_group_passes() -> None:
    group_filter, samples = by("none"), drawn(ALIKE, FAILED)
    assert group_filter.takes_all
    assert group_filter.verdicts(samples, 0) == {0: ("", ""), 1: ("", "")}
    assert group_filter.take_counts() == {}


def test_counts_are_told_once() -> None:
    group_filter, samples = by("nonzero_std"), drawn(ALIKE, PASSES)
    group_filter.choose(samples, group_filter.verdicts(samples, 0), 1)
    assert group_filter.take_counts()
    assert group_filter.take_counts() == {}


@pytest.fixture
def rollout(tmp_path: Path) -> Iterator[Rollout]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    nobody: Any = None
    group_filter = by("nonzero_std", 0.5)
    yield Rollout(nobody, nobody, nobody, nobody, nobody, 1, 1, group_filter=group_filter)
    dist.destroy_process_group()


def settled(rollout: Rollout, seed: int, num_trained: int | None) -> list[tuple[int, int, float | None]]:
    """What a rollout gives whose samples came in an order of their own."""
    samples = drawn(ALIKE, PASSES, FAILED, PASSES, PASSES)
    random.Random(seed).shuffle(samples)
    made = Generated([sample.prompt for sample in drawn([1.0], [1.0], [1.0], [1.0], [1.0])], num_trained=num_trained)
    for sample in samples:
        made.samples.append(sample)
        made.scores.append(Future())
        made.scores[-1].set_result(Score(sample.reward, "broken" if sample.reward is None else None))
    return [(sample.group, sample.index, sample.reward) for sample in rollout.settle(made)]


def test_the_order_of_completion_changes_nothing(rollout: Rollout) -> None:
    first = settled(rollout, 0, 2)
    assert first == [(1, 0, 0.0), (1, 1, 1.0), (1, 2, 1.0), (3, 0, 0.0), (3, 1, 1.0), (3, 2, 1.0)]
    assert all(settled(rollout, seed, 2) == first for seed in range(1, 6))


def test_evaluations_are_not_filtered(rollout: Rollout) -> None:
    assert len(settled(rollout, 0, None)) == 15
