from __future__ import annotations

import pytest
import torch

from core.algorithm.advantages import group_advantages


def by_hand(rewards: list[float], std: bool) -> list[float]:
    r = torch.tensor(rewards, dtype=torch.float64)
    centred = r - r.mean()
    return (centred / (r.std() + 1e-6) if std else centred).tolist()


@pytest.mark.parametrize("std", [True, False], ids=["grpo", "dr_grpo"])
def test_equals_the_formula_per_group_in_any_order(std: bool) -> None:
    rewards = torch.tensor([1.0, 0.0, 0.5, 2.0, 0.0, 1.0])
    groups = torch.tensor([7, 3, 7, 3, 7, 3])
    got = group_advantages(rewards, groups, torch.ones(6, dtype=torch.bool), std)
    assert got[[0, 2, 4]].tolist() == pytest.approx(by_hand([1.0, 0.5, 0.0], std), abs=1e-6)
    assert got[[1, 3, 5]].tolist() == pytest.approx(by_hand([0.0, 2.0, 1.0], std), abs=1e-6)


def test_equal_rewards_have_no_advantage() -> None:
    got = group_advantages(
        torch.full((4,), 0.3), torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.bool), True
    )
    assert got.tolist() == [0.0] * 4


def test_failed_samples_take_no_part() -> None:
    rewards = torch.tensor([1.0, float("nan"), 0.0, float("nan")])
    valid = torch.tensor([True, False, True, False])
    got = group_advantages(rewards, torch.tensor([0, 0, 0, 1]), valid, True)
    half = 0.5 / (0.5**0.5 + 1e-6)
    assert got.tolist() == pytest.approx([half, 0.0, -half, 0.0], abs=1e-6)


@pytest.mark.parametrize("std", [True, False], ids=["grpo", "dr_grpo"])
def test_the_only_scored_sample_of_a_group_has_no_advantage(std: bool) -> None:
    rewards, valid = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([True, True, False])
    assert group_advantages(rewards, torch.tensor([4, 6, 6]), valid, std).tolist() == [0.0] * 3


def test_refuses_vectors_of_different_lengths() -> None:
    with pytest.raises(ValueError, match="three vectors of one length"):
        group_advantages(torch.zeros(2), torch.zeros(3, dtype=torch.long), torch.ones(2, dtype=torch.bool), True)
