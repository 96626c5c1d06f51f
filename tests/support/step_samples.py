"""Made-up samples and step records, for tests of what stores and shows them."""

from __future__ import annotations

import random
from pathlib import Path

from core.samples import Prompt, Sample, Span, Status
from core.trajectory import StepRecord, step_path, write_step

TEXTS = ("3 + 4 = 7", "", "größer 日本語 🎉", "a\nb\t'\"\\", "[bold]not markup[/bold]", "\x1b[31mred")


def make_samples(num_groups: int, group_size: int, seed: int = 0) -> list[Sample]:
    """Groups of random samples: some responses are empty, some samples have failed."""
    rng = random.Random(seed)
    return [_sample(group, index, rng) for group in range(num_groups) for index in range(group_size)]


def _sample(group: int, index: int, rng: random.Random) -> Sample:
    length = rng.choice([0, 1, rng.randint(2, 40)])
    failed = rng.random() < 0.1
    return Sample(
        group=group,
        index=index,
        prompt=Prompt(group + 100, rng.choice(TEXTS) + f" #{group}", tuple(range(group + 1)), {"answer": [group]}),
        response_tokens=[rng.randrange(50_000) for _ in range(length)],
        logprobs_engine=[-rng.random() for _ in range(length)],
        status=Status.FAILED if failed else rng.choice([Status.COMPLETED, Status.TRUNCATED]),
        weight_version="4",
        response_text=rng.choice(TEXTS),
        loss_mask=[rng.randrange(2) for _ in range(length)],
        reward=None if failed else rng.choice([0.0, 1.0, rng.gauss(0, 1)]),
        failure="IndexError: list index out of range" if failed else None,
        engine="engine-0",
        reward_parts={"right": 1.0, "brief": length / 40} if length > 10 and not failed else {},
        turns=(Span(0, 9, "tool", text=TEXTS[2]), Span(9, length, "assistant", -0.5, "4")) if length > 20 else (),
    )


def make_record(samples: list[Sample], step: int = 12, gap: float = 0.01) -> StepRecord:
    """The record of a step; the trainer's log-probs are `gap` below the engine's."""
    import torch  # here, so that processes which only write records start fast

    from core.algorithm.advantages import group_advantages

    valid = torch.tensor([sample.reward is not None for sample in samples], dtype=torch.bool)
    rewards = torch.tensor([sample.reward or 0.0 for sample in samples])
    groups = torch.tensor([sample.group for sample in samples], dtype=torch.int64)
    return StepRecord.from_samples(
        samples,
        advantages=group_advantages(rewards, groups, valid, std_normalization=True).tolist(),
        logprobs_old=[[value - gap for value in sample.logprobs_engine] for sample in samples],
        step=step,
        run="demo",
        model="smollm2-135m",
        dtype="float32",
        metrics={"rollout/raw_reward": 0.5},
    )


def write_run(run_dir: Path, steps: list[int]) -> Path:
    """A run directory with these steps stored."""
    for step in steps:
        write_step(step_path(run_dir, step), make_record(make_samples(4, 4, seed=step), step))
    return run_dir
