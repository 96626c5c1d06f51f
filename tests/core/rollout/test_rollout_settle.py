"""How a step's scores are collected, when there are some and when there is nobody to give them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from core.reward import RewardsUnavailable, Score
from core.rollout.request import Generated
from core.rollout.rollout import Rollout
from core.samples import Prompt, Sample, Status

PROMPTS = [Prompt(row, "p", (1,), "x") for row in range(2)]
SCORES = {(1, 0): Score(0.5), (0, 1): Score(None, "KeyError"), (0, 0): Score(1.0)}


@pytest.fixture
def rollout(tmp_path: Path) -> Iterator[Rollout]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    nobody: Any = None
    yield Rollout(nobody, nobody, nobody, nobody, nobody, 1, 1)
    dist.destroy_process_group()


def generated() -> Generated:
    """Three samples, out of order, as engines answer."""
    made = Generated(PROMPTS)
    for group, index in SCORES:
        made.samples.append(Sample(group, index, PROMPTS[group], [1], [-1.0], Status.COMPLETED, "v"))
        made.scores.append(Future())
    return made


def test_scores_are_noted_with_their_samples_in_order(rollout: Rollout) -> None:
    made = generated()
    for future, score in zip(made.scores, SCORES.values(), strict=True):
        future.set_result(score)
    found = [(s.group, s.index, s.reward, s.failure, s.status.value) for s in rollout.settle(made)]
    assert found == [
        (0, 0, 1.0, None, "completed"),
        (0, 1, None, "KeyError", "failed"),
        (1, 0, 0.5, None, "completed"),
    ]


def test_nobody_to_score_is_an_error_of_the_step(rollout: Rollout) -> None:
    made = generated()
    made.scores[0].set_result(Score(1.0))
    made.scores[1].set_exception(RewardsUnavailable("0 of 2 reward servers answer"))
    with pytest.raises(RewardsUnavailable, match="0 of 2"):
        rollout.settle(made)
