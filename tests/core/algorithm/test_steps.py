"""Samples over optimiser steps: equally many tasks, and those of one task together."""

from __future__ import annotations

import pytest

from core.algorithm.steps import step_bounds
from core.samples import TrainSample


def sample(group: int, task: int | None) -> TrainSample:
    return TrainSample(group, [1], [2], [1], 0.5, [-1.0], task=task)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 8])
def test_tasks_of_one_sample_are_split_evenly(num_steps: int) -> None:
    samples = [sample(group, task) for group in range(4) for task in range(4)]
    assert step_bounds(samples, num_steps) == [16 * step // num_steps for step in range(num_steps + 1)]


def test_samples_whose_task_nobody_knows_count_one_each() -> None:
    assert step_bounds([sample(0, None)] * 6, 3) == [0, 2, 4, 6]


def test_samples_of_one_task_stay_together() -> None:
    made = [3, 1, 1, 1, 2, 1, 4, 1]  # by task; four of each group
    samples = [sample(place // 4, place % 4) for place, count in enumerate(made) for _ in range(count)]
    assert step_bounds(samples, 2) == [0, 6, 14]
    assert step_bounds(samples, 4) == [0, 4, 6, 9, 14]


def test_a_task_ends_with_its_group() -> None:
    assert step_bounds([sample(0, 0), sample(1, 0), sample(2, 0), sample(3, 0)], 2) == [0, 2, 4]
