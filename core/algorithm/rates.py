"""What is said of an evaluation set: right answers, rewards, lengths. Pure.

Source of pass@k: the unbiased estimator of arXiv:2107.03374, equation 1. Differs: none.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

from core.algorithm.advantages.pass_at_k import RIGHT
from core.algorithm.batch import mean
from core.samples import Sample, Status


def evaluation_rates(samples: Sequence[Sample]) -> dict[str, float]:
    """Share of right samples; chance that one of k is right, for k = 2, 4, 8, … and all; mean reward and length.

    A sample that could not be scored is wrong, and has no part in the mean reward.
    """
    rewards = [sample.reward for sample in samples if sample.reward is not None]
    size = max(sample.task for sample in samples) + 1
    right: dict[int, dict[int, bool]] = {}  # group -> task: whether one of its samples is right
    for sample in samples:
        tasks = right.setdefault(sample.group, {})
        tasks[sample.task] = tasks.get(sample.task, False) or _is_right(sample)
    counts = [(len(tasks), sum(tasks.values())) for tasks in right.values()]
    return {
        "accuracy": mean([_is_right(sample) for sample in samples]),
        **{f"pass@{k}": mean([pass_at(min(k, n), n, right) for n, right in counts]) for k in _sizes(size)},
        **({"reward": mean(rewards)} if rewards else {}),
        "response_len": mean([len(sample.response_tokens) for sample in samples]),
        "truncated_ratio": mean([sample.status is Status.TRUNCATED for sample in samples]),
    }


def pass_at(k: int, num_samples: int, num_right: int) -> float:
    """Chance that of k samples, drawn from these without putting back, at least one is right."""
    return 1.0 - comb(num_samples - num_right, k) / comb(num_samples, k)


def _sizes(size: int) -> list[int]:
    powers = [2**exponent for exponent in range(1, size.bit_length()) if 2**exponent < size]
    return [*powers, size] if size > 1 else []


def _is_right(sample: Sample) -> bool:
    return sample.reward is not None and sample.reward > RIGHT
