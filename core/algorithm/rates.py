"""What is said of an evaluation set: right answers, rewards, lengths. Pure.

Source of pass@k: the unbiased estimator of arXiv:2107.03374, equation 1. Differs: none.
Source of maj@k: self-consistency, arXiv:2203.11171, section 2. Differs: answers that got equally many votes share, so
that no order decides; of more samples, each k in a row vote, and the mean of these counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import comb

from core.algorithm.advantages.pass_at_k import RIGHT
from core.algorithm.batch import episode_metrics, mean, mean_parts
from core.samples import Sample, Status

OF_DIALOGUES = ("turns/mean", "tool_calls/valid_ratio")


def evaluation_rates(
    samples: Sequence[Sample], answer_of: Callable[[str], str | None] | None = None
) -> dict[str, float]:
    """Share of right samples; chance that one of k is right, for k = 2, 4, 8, … and all; mean reward and length.

    Of dialogues also turns, and the share of those that made calls of which none failed.

    A sample that could not be scored is wrong, and has no part in the mean reward.

    Args:
        answer_of: a response's answer in it, None where it has none: then also how often the commonest answer of k is
            right.
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
        **({} if answer_of is None else _majorities(samples, answer_of, _sizes(size))),
        **({"reward": mean(rewards)} if rewards else {}),
        **{f"reward/{name}": value for name, value in mean_parts(samples).items()},
        "response_len": mean([len(sample.response_tokens) for sample in samples]),
        "truncated_ratio": mean([sample.status is Status.TRUNCATED for sample in samples]),
        **{name: value for name, value in episode_metrics(samples).items() if name in OF_DIALOGUES},
    }


def pass_at(k: int, num_samples: int, num_right: int) -> float:
    """Chance that of k samples, drawn from these without putting back, at least one is right."""
    return 1.0 - comb(num_samples - num_right, k) / comb(num_samples, k)


def majority_at(k: int, votes: Sequence[tuple[str | None, bool]]) -> float:
    """How often the commonest answer of k votes is right, over each k in a row.

    Args:
        votes: answer of each sample, None for none, and whether it is right; at least k.
    """
    parts = [votes[start : start + k] for start in range(0, len(votes) - k + 1, k)]
    return mean([_chosen_is_right(part) for part in parts])


def _chosen_is_right(votes: Sequence[tuple[str | None, bool]]) -> float:
    """Whether the commonest answer is right; its share where several are commonest; without any answer it is wrong."""
    counts = Counter(answer for answer, _ in votes if answer is not None)
    chosen = [answer for answer, count in counts.items() if count == max(counts.values())]
    return mean([dict(votes)[answer] for answer in chosen]) if chosen else 0.0


def _majorities(
    samples: Sequence[Sample], answer_of: Callable[[str], str | None], sizes: Sequence[int]
) -> dict[str, float]:
    """The rates maj@k. A task that made several samples votes with the last of them."""
    groups: dict[int, dict[int, tuple[str | None, bool]]] = {}
    for sample in sorted(samples, key=lambda sample: sample.index):
        groups.setdefault(sample.group, {})[sample.task] = (answer_of(sample.response_text), _is_right(sample))
    votes = [[tasks[task] for task in sorted(tasks)] for tasks in groups.values()]
    return {f"maj@{k}": mean([majority_at(min(k, len(one)), one) for one in votes]) for k in sizes}


def _sizes(size: int) -> list[int]:
    powers = [2**exponent for exponent in range(1, size.bit_length()) if 2**exponent < size]
    return [*powers, size] if size > 1 else []


def _is_right(sample: Sample) -> bool:
    return sample.reward is not None and sample.reward > RIGHT
