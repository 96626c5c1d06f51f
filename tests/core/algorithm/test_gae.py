"""Advantages and returns with a critic, its loss and its explained variance, against short references of their own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from common.mistake import Wrong
from core.algorithm.advantages.gae import gae
from core.algorithm.batch import make_batch
from core.algorithm.estimate import build_advantages, estimate_with_values
from core.algorithm.value_loss import ValueInputs, ValueLoss, explained_variance
from core.config.sections.algorithm import AlgorithmConfig
from core.samples import TrainSample
from tests.support.step_samples import make_samples


def by_hand(reward: float, values: Sequence[float], mask: Sequence[int], gamma: float, lambd: float) -> list[float]:
    """Equation 16 of arXiv:1506.02438 as it stands: a sum over all later steps, for the tokens that count."""
    places = [place for place, one in enumerate(mask) if one]
    v = [*(values[place] for place in places), 0.0]
    r = [0.0] * (len(places) - 1) + [reward]
    delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(len(places))]
    found = [0.0] * len(mask)
    for t, place in enumerate(places):
        found[place] = sum((gamma * lambd) ** (later - t) * delta[later] for later in range(t, len(places)))
    return found


def made(seed: int, num: int = 7) -> tuple[list[float], list[list[float]], list[list[int]]]:
    """Rewards, values and masks; one response is empty, and one counts nowhere."""
    rng = random.Random(seed)
    lengths = [0, *(rng.randrange(1, 30) for _ in range(num - 1))]
    values = [[rng.gauss(0, 1) for _ in range(length)] for length in lengths]
    masks = [[int(rng.random() < 0.8) for _ in range(length)] for length in lengths]
    masks[-1] = [0] * lengths[-1]
    return [rng.gauss(0, 1) for _ in lengths], values, masks


@pytest.mark.parametrize(("gamma", "lambd"), [(1.0, 1.0), (0.97, 0.9), (1.0, 0.0), (0.5, 1.0)])
def test_equals_the_sum_over_later_steps(gamma: float, lambd: float) -> None:
    rewards, values, masks = made(3)
    tensors = [torch.tensor(v) for v in values], [torch.tensor(m, dtype=torch.float32) for m in masks]
    found = gae(torch.tensor(rewards), *tensors, gamma, lambd, [torch.zeros(len(v)) for v in values])
    for got, reward, value, mask in zip(found, rewards, values, masks, strict=True):
        assert got.tolist() == pytest.approx(by_hand(reward, value, mask, gamma, lambd), abs=1e-6)


def train_samples(rewards: Sequence[float | None], masks: Sequence[Sequence[int]]) -> list[TrainSample]:
    return [
        TrainSample(0, [1], [5] * len(mask), [0] * len(mask) if reward is None else mask, 0.0, [0.0] * len(mask))
        if reward is None
        else TrainSample(0, [1], [5] * len(mask), mask, 0.0, [0.0] * len(mask), reward=reward)
        for reward, mask in zip(rewards, masks, strict=True)
    ]


def test_advantages_are_whitened_over_the_tokens_of_the_step_and_returns_are_not() -> None:
    rewards, values, masks = made(5)
    estimator = build_advantages(
        AlgorithmConfig(advantage_estimator="gae", advantage_options={"gamma": 0.99, "lambd": 0.95})
    )
    some = [None if place == 2 else reward for place, reward in enumerate(rewards)]
    advantages, returns = estimate_with_values(estimator, train_samples(some, masks), values)
    raw = [by_hand(*one, 0.99, 0.95) for one in zip(rewards, values, masks, strict=True)]
    part = [(s, t) for s, mask in enumerate(masks) for t, one in enumerate(mask) if one and s != 2]
    counted = np.array([raw[s][t] for s, t in part])
    whitened = (counted - counted.mean()) / counted.std()
    assert [advantages[s][t] for s, t in part] == pytest.approx(whitened.tolist(), abs=1e-6)
    assert [returns[s][t] for s, t in part] == pytest.approx([raw[s][t] + values[s][t] for s, t in part], abs=1e-6)
    assert not any(advantages[2])
    assert not any(returns[2])


def test_a_batch_waits_for_the_values_and_brings_the_rewards() -> None:
    samples = make_samples(4, 3)
    batch = make_batch(samples, build_advantages(AlgorithmConfig(advantage_estimator="gae")))
    assert batch.advantages == [0.0] * len(samples)
    assert [one.reward for one in batch.train_samples()] == [sample.reward for sample in samples]


def loss_by_hand(values: Any, old: Any, returns: Any, weights: Any, clip: float) -> tuple[Any, Any]:
    """Clipped value loss in numpy, and its gradient, written out."""
    near = np.clip(values, old - clip, old + clip)
    free, held = (values - returns) ** 2, (near - returns) ** 2
    inside = np.abs(values - old) <= clip
    gradient = np.where(free >= held, 2 * (values - returns), np.where(inside, 2 * (near - returns), 0.0))
    return (np.maximum(free, held) * weights).sum(), gradient * weights


def test_the_value_loss_and_its_gradient_equal_the_formula() -> None:
    rng = np.random.default_rng(2)
    old, returns, moved = (rng.normal(size=200) for _ in range(3))
    weights = rng.random(200) / 200
    values = torch.tensor(old + 0.3 * moved, dtype=torch.float32, requires_grad=True)
    tensors = (torch.tensor(one, dtype=torch.float32) for one in (weights, old, returns))
    loss, metrics = ValueLoss(0.2)(values, None, ValueInputs(*tensors))
    loss.backward()
    wanted, gradient = loss_by_hand(old + 0.3 * moved, old, returns, weights, 0.2)
    assert loss.item() == pytest.approx(wanted, abs=1e-6)
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx(gradient.tolist(), abs=1e-6)
    held = (np.clip(0.3 * moved, -0.2, 0.2) + old - returns) ** 2 > (old + 0.3 * moved - returns) ** 2
    assert float(metrics["train/value_clipfrac"]) == pytest.approx((held * weights).sum(), abs=1e-6)
    assert 0 < (held * weights).sum() < weights.sum()


def test_without_a_clip_the_value_loss_is_the_squared_error() -> None:
    values, returns, weights = torch.tensor([1.0, 5.0]), torch.tensor([0.0, 2.0]), torch.tensor([0.5, 0.25])
    loss, metrics = ValueLoss(None)(values, None, ValueInputs(weights, torch.zeros(2), returns))
    assert float(loss) == 0.5 * 1 + 0.25 * 9
    assert float(metrics["train/value_clipfrac"]) == 0


def test_explained_variance() -> None:
    returns, masks = [[1.0, 2.0], [3.0, 9.0]], [[1, 1], [1, 0]]
    assert explained_variance(returns, returns, masks) == 1
    assert explained_variance([[7.0, 7.0], [7.0, 0.0]], returns, masks) == pytest.approx(0)
    assert explained_variance([[1.0, 2.0], [2.0, 0.0]], returns, masks) == pytest.approx(1 - (2 / 9) / (2 / 3))
    assert explained_variance(returns, [[4.0, 4.0], [4.0, 0.0]], masks) is None


@pytest.mark.parametrize("options", [{"gamma": 0.0}, {"gamma": 1.1}, {"lambd": -0.1}, {"lambd": 2}])
def test_an_option_that_means_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(Wrong, match="0 < gamma <= 1 and 0 <= lambd <= 1"):
        build_advantages(AlgorithmConfig(advantage_estimator="gae", advantage_options=options))


OWN = """
def silent(rewards, groups, valid, *, values):
    return values, values

def early(rewards, groups, valid):
    return rewards

early.needs_values = True

def single(rewards, groups, valid, *, values):
    return values

single.needs_values = True
"""


@pytest.mark.parametrize("name", ["silent", "early"])
def test_taking_values_and_saying_so_go_together(tmp_path: Any, name: str) -> None:
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(Wrong, match="needs_values = True with a parameter values, or neither"):
        build_advantages(AlgorithmConfig(advantage_estimator=f"{tmp_path / 'own.py'}:{name}"))


def test_advantages_without_returns_are_refused(tmp_path: Any) -> None:
    (tmp_path / "own.py").write_text(OWN)
    estimator = build_advantages(AlgorithmConfig(advantage_estimator=f"{tmp_path / 'own.py'}:single"))
    with pytest.raises(Wrong, match="a pair, advantages and returns"):
        estimate_with_values(estimator, train_samples([1.0], [[1, 1]]), [[0.0, 0.0]])
