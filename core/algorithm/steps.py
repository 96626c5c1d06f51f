"""How a step's samples are split over its optimiser steps."""

from __future__ import annotations

from collections.abc import Sequence

from core.samples import TrainSample


def step_bounds(samples: Sequence[TrainSample], num_steps: int) -> list[int]:
    """Places at which the optimiser steps begin, and the end: consecutive parts with equally many tasks.

    A task is one of a group's `n_samples_per_prompt`, and makes one sample, or several if the run's own generation
    gives several: these stay together. With one sample each, parts have equally many samples.

    Args:
        samples: by group and task, samples of one task adjacent.
    Returns:
        num_steps + 1 places, from 0 to len(samples).
    """
    begins = [place for place in range(len(samples)) if place == 0 or not _is_same(samples[place - 1], samples[place])]
    ends = [*begins, len(samples)]
    return [ends[len(begins) * step // num_steps] for step in range(num_steps + 1)]


def _is_same(one: TrainSample, other: TrainSample) -> bool:
    """Whether both are of one task."""
    return one.task is not None and (one.group, one.task) == (other.group, other.task)
