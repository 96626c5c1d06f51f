"""The trainer's batch, made from scored samples: failures counted, advantages computed, metrics taken. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from core.algorithm.advantages import Advantages
from core.algorithm.advantages.pass_at_k import RIGHT
from core.algorithm.estimate import estimate, needs_values
from core.samples import EPISODE, Sample, Status, TrainSample

REPETITION_TAIL = 32  # tokens: a response whose last 32 tokens repeat the 32 before them counts as repetitive


class TooManyFailures(RuntimeError):
    """More samples could not be scored than the run file allows. The message names the reasons."""


@dataclass(frozen=True)
class Batch:
    """A step's samples with their advantages, in one order.

    Attributes:
        advantages: one number per sample, or one per response token of each; 0 while they wait for a critic's values.
        on_policy: whether the weights that made the samples are those that learn from them first. If not, or if older
            weights made some of a sample's tokens that count, the log-probs
            of the engine, which had older weights, are the old ones of the loss; else the trainer's own before its
            first optimiser step.
    """

    samples: list[Sample]
    advantages: Sequence[float | Sequence[float]]
    on_policy: bool = True

    def train_samples(self) -> list[TrainSample]:
        """What the trainer needs of each sample; a failed one has its whole response masked out."""
        return [_train_sample(s, a, self.on_policy) for s, a in zip(self.samples, self.advantages, strict=True)]


def make_batch(samples: list[Sample], advantages: Advantages, *, on_policy: bool = True) -> Batch:
    """A step's samples with what the estimator makes of them; samples without a reward take no part.

    An estimator that needs a critic's values is asked in the update, by the trainer.
    """
    on_policy = on_policy and not any(sample.off_policy for sample in samples)
    waits = needs_values(advantages)
    return Batch(samples, [0.0] * len(samples) if waits else estimate(advantages, samples), on_policy)


def check_failures(samples: Sequence[Sample], max_failed_share: float) -> None:
    """Refuse a step in which too many samples have no reward.

    Raises:
        TooManyFailures: naming the share, the limit and the commonest reasons.
    """
    reasons = Counter(s.failure for s in samples if s.failed)
    num_failed = sum(reasons.values())
    if not num_failed or num_failed / len(samples) <= max_failed_share:  # a product would round: 0.29 x 100 < 29
        return
    commonest = "; ".join(f"{count}x {reason}" for reason, count in reasons.most_common(3))
    raise TooManyFailures(
        f"{num_failed} of {len(samples)} samples could not be scored ({num_failed / len(samples):.0%}), more than "
        f"reward.max_failed_share = {max_failed_share:.0%}: {commonest}. Mend the reward, or the generation (or raise "
        "the share), then resume: nothing before this step is lost."
    )


def rollout_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """What the field logs about a step's samples, under its usual names."""
    rewards = [s.reward for s in samples if s.reward is not None]
    lengths = sorted(len(s.response_tokens) for s in samples)
    return {
        **(_reward_metrics(rewards) if rewards or any(s.failed for s in samples) else {}),
        **{f"rollout/reward/{name}": value for name, value in mean_parts(samples).items()},
        "rollout/response_len/mean": mean(lengths),
        "rollout/response_len/max": float(lengths[-1]),
        "rollout/response_len/min": float(lengths[0]),
        "rollout/response_len/median": float(lengths[len(lengths) // 2]),
        "rollout/truncated_ratio": mean([s.status is Status.TRUNCATED for s in samples]),
        "rollout/failed_ratio": mean([s.failed for s in samples]),
        "rollout/repetition_frac": mean([_repeats(s.response_tokens) for s in samples]),
        **_group_metrics(samples),
        "rollout/response_tokens": float(sum(lengths)),
        **{f"rollout/{name}": value for name, value in episode_metrics(samples).items()},
    }


def episode_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """Turns and calls of those samples that are dialogues; nothing where there are none."""
    episodes = [sample.episode for sample in samples if sample.episode]
    if not episodes:
        return {}
    turns, calls, errors = ([one.get(name, 0) for one in episodes] for name in EPISODE)
    return {
        "turns/mean": mean(turns),
        "turns/max": float(max(turns)),
        "tool_calls/mean": mean(calls),
        "tool_calls/error_ratio": sum(errors) / max(1, sum(calls)),
        "tool_calls/none_ratio": mean([count == 0 for count in calls]),
        "tool_calls/valid_ratio": mean([made > 0 and not failed for made, failed in zip(calls, errors, strict=True)]),
    }


def _reward_metrics(rewards: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation over the samples, and bounds; NaN where no sample has a reward."""
    average = mean(rewards)
    return {
        "rollout/raw_reward": average,
        "rollout/raw_reward/std": math.sqrt(mean([(reward - average) ** 2 for reward in rewards])),
        "rollout/raw_reward/min": min(rewards, default=math.nan),
        "rollout/raw_reward/max": max(rewards, default=math.nan),
    }


def mean_parts(samples: Sequence[Sample]) -> dict[str, float]:
    """Means of the parts of rewards that were mappings, by name; each over the samples that have it."""
    names = sorted({name for sample in samples for name in sample.reward_parts})
    return {name: mean([one.reward_parts[name] for one in samples if name in one.reward_parts]) for name in names}


def _group_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """Groups that teach little: without spread; and of those with a reward, all right or all wrong."""
    rewards: dict[int, set[float]] = {}
    for sample in samples:
        if sample.reward is not None:
            rewards.setdefault(sample.group, set()).add(sample.reward)
    without_spread = sum(len(distinct) == 1 for distinct in rewards.values())
    num_groups = len({sample.group for sample in samples})
    return {
        "rollout/zero_std/count": float(without_spread),
        "rollout/zero_std/ratio": without_spread / num_groups,
        "rollout/solve_all/ratio": sum(min(distinct) > RIGHT for distinct in rewards.values()) / num_groups,
        "rollout/solve_none/ratio": sum(max(distinct) <= RIGHT for distinct in rewards.values()) / num_groups,
    }


def _repeats(tokens: Sequence[int]) -> bool:
    n = REPETITION_TAIL
    return len(tokens) >= 2 * n and list(tokens[-n:]) == list(tokens[-2 * n : -n])


def mean(values: Sequence[float]) -> float:
    return float(sum(values)) / len(values) if values else float("nan")


def _train_sample(sample: Sample, advantage: float | Sequence[float], on_policy: bool) -> TrainSample:
    return TrainSample(
        group=sample.group,
        prompt_tokens=list(sample.prompt.tokens),
        response_tokens=sample.response_tokens,
        loss_mask=[0] * len(sample.loss_mask) if sample.failed else sample.loss_mask,
        advantage=advantage,
        logprobs_engine=sample.logprobs_engine,
        logprobs_old=None if on_policy else sample.logprobs_engine,
        task=sample.task,
        reward=sample.reward,
        routing=sample.routing,
    )
