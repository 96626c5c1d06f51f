from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from common.mistake import Wrong
from core.algorithm.advantages import group_advantages
from core.algorithm.advantages.pass_at_k import PassAtK
from core.algorithm.estimate import build_advantages, estimate
from core.algorithm.whiten import whiten
from core.config.sections.algorithm import AlgorithmConfig
from core.doors import ADVANTAGE
from core.samples import Prompt, Sample, Status


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


REWARDS = [1.0, 0.0, 0.25, 2.0, 0.0, 1.0, 0.5, 0.0, 1.0]
GROUPS = [7, 7, 7, 3, 3, 3, 3, 5, 5]
VALID = [True, True, True, True, True, True, False, True, True]
MASKS = [[1, 1, 0, 1], [1], [0, 0], [1, 1, 1], [1, 0], [1], [1, 1], [1, 1], [1, 1, 1, 0]]


def given(name: str, order: list[int] | None = None, **options: Any) -> list[Any]:
    """What a built-in gives for the step above, its samples in this order; put back into their own."""
    order = order or list(range(len(REWARDS)))
    config = AlgorithmConfig(advantage_estimator=name, advantage_options=options)
    samples = [
        Sample(
            GROUPS[i],
            0,
            Prompt(0, "", (1,), None),
            MASKS[i],
            [-1.0] * len(MASKS[i]),
            Status.COMPLETED,
            "0",
            loss_mask=MASKS[i],
            reward=REWARDS[i] if VALID[i] else None,
        )
        for i in order
    ]
    found = estimate(build_advantages(config), samples)
    return [found[order.index(i)] for i in range(len(order))]


def peers(i: int) -> list[int]:
    return [j for j in range(len(REWARDS)) if GROUPS[j] == GROUPS[i] and VALID[j]]


def whitened(per_token: list[list[float]]) -> list[list[float]]:
    """Float64 numpy, over the tokens that count."""
    counted = np.array([v for i, vs in enumerate(per_token) for v, m in zip(vs, MASKS[i], strict=True) if m * VALID[i]])
    return [
        [(v - counted.mean()) / counted.std() if m * VALID[i] else 0.0 for v, m in zip(vs, MASKS[i], strict=True)]
        for i, vs in enumerate(per_token)
    ]


def reference(name: str, gamma: float, k: int) -> list[Any]:
    """Each formula as its paper has it, sample by sample."""
    own = [i for i in range(len(REWARDS)) if VALID[i]]
    mean = {i: np.mean([REWARDS[j] for j in peers(i)]) for i in own}
    if name == "grpo":
        std = {i: np.std([REWARDS[j] for j in peers(i)], ddof=1) for i in own}
        return [(REWARDS[i] - mean[i]) / (std[i] + 1e-6) if VALID[i] else 0.0 for i in range(9)]
    if name == "dr_grpo":
        return [REWARDS[i] - mean[i] if VALID[i] else 0.0 for i in range(9)]
    if name == "rloo":
        return [REWARDS[i] - np.mean([REWARDS[j] for j in peers(i) if j != i]) if VALID[i] else 0.0 for i in range(9)]
    if name == "reinforce_plus_plus_baseline":
        return whitened([[REWARDS[i] - mean[i] if VALID[i] else 0.0] * len(MASKS[i]) for i in range(9)])
    if name == "none":
        return [float(VALID[i]) for i in range(9)]
    if name == "pass_at_k":
        return [best_of(i, k) if VALID[i] else 0.0 for i in range(9)]
    returns = []
    for i in range(9):
        last = max((t for t, m in enumerate(MASKS[i]) if m), default=0)
        returns.append([REWARDS[i] * gamma ** max(0, last - t) for t in range(len(MASKS[i]))])
    return whitened(returns)


def best_of(i: int, k: int) -> float:
    """All draws of k samples, one by one: the mean success of those with sample i, against that of all."""
    right = {j: REWARDS[j] > 0.5 for j in peers(i)}
    if len(right) < k:
        return 0.0
    every = [float(any(right[j] for j in draw)) for draw in combinations(right, k)]
    with_it = [float(any(right[j] for j in draw)) for draw in combinations(right, k) if i in draw]
    return float((np.mean(with_it) - np.mean(every)) / np.std(every)) if np.std(every) else 0.0


NAMES = ["grpo", "dr_grpo", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "pass_at_k", "none"]
OPTIONS: dict[str, dict[str, Any]] = {"reinforce_plus_plus": {"gamma": 0.9}, "pass_at_k": {"k": 2}}


def flat(values: list[Any]) -> list[float]:
    return [number for value in values for number in (value if isinstance(value, list) else [value])]


@pytest.mark.parametrize("name", NAMES)
def test_each_built_in_equals_its_formula_in_any_order(name: str) -> None:
    wanted = flat(reference(name, gamma=0.9, k=2))
    assert sum(map(abs, wanted)) > 1
    assert flat(given(name, **OPTIONS.get(name, {}))) == pytest.approx(wanted, abs=1e-6)
    order = [8, 3, 0, 5, 1, 7, 6, 2, 4]
    assert flat(given(name, order, **OPTIONS.get(name, {}))) == pytest.approx(wanted, abs=1e-6)


def test_all_built_ins_are_tested() -> None:
    assert {*NAMES, "gae"} == set(ADVANTAGE.builtins)  # which test_gae.py has, for it needs values


def test_a_right_answer_among_wrong_ones_is_worth_more_to_the_best_of_two() -> None:
    """Three of four right: any two have a right one, so nothing is learnt; one of four: much."""
    by_two = PassAtK(2)
    groups, valid = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.bool)
    assert by_two(torch.tensor([1.0, 1.0, 1.0, 0.0]), groups, valid).tolist() == [0.0] * 4
    rare = by_two(torch.tensor([1.0, 0.0, 0.0, 0.0]), groups, valid)
    assert rare.tolist() == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [("reinforce_plus_plus", {"gamma": 0.0}, "gamma 0.0; wanted 0 < gamma <= 1"), ("pass_at_k", {"k": 0}, "k 0; want")],
)
def test_an_option_that_means_nothing_is_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        given(name, **options)


def test_equal_rewards_whiten_to_nothing() -> None:
    ones, mask = [torch.ones(3), torch.ones(2)], [torch.ones(3), torch.ones(2)]
    assert [one.tolist() for one in whiten(ones, mask, torch.ones(2, dtype=torch.bool))] == [[0.0] * 3, [0.0] * 2]
