"""The KL in the rewards of tokens, against ten lines of numpy that say the formulas of the papers."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from core.algorithm.estimate import build_advantages, estimate_with_kl, estimate_with_values
from core.algorithm.kl import kl_in_rewards, mean_kl
from core.config.sections.algorithm import AlgorithmConfig
from core.samples import TrainSample

COEF = 0.05


def made(seed: int, num: int = 8) -> list[TrainSample]:
    """Two samples a prompt; tokens that do not count within them, an empty one, one without a reward, a masked one."""
    rng = random.Random(seed)
    samples = []
    for place in range(num):
        length = 0 if place == 3 else rng.randrange(1, 25)
        mask = [int(rng.random() < 0.8 and place not in (1, 5)) for _ in range(length)]
        engine, old, ref = ([rng.gauss(-2, 1) for _ in range(length)] for _ in range(3))
        reward = None if place == 5 else rng.gauss(0, 1)
        samples.append(TrainSample(place // 2, [1], [5] * length, mask, 0.0, engine, old, ref, reward=reward))
    return samples


def rewards_by_hand(sample: TrainSample) -> Any:
    """[T] r_t = -coef (logp_old - logp_ref), and the response's reward more at the last token that counts."""
    mask = np.array(sample.loss_mask, dtype=bool)
    found = np.where(mask, -COEF * (np.array(sample.logprobs_old) - np.array(sample.logprobs_ref)), 0.0)
    if mask.any():
        found[mask.nonzero()[0][-1]] += sample.reward or 0.0
    return found


def whitened(raw: list[Any], samples: list[TrainSample]) -> list[Any]:
    part = [np.array(s.loss_mask, dtype=bool) & (s.reward is not None) for s in samples]
    flat = np.concatenate([one[mask] for one, mask in zip(raw, part, strict=True)])
    return [np.where(mask, (one - flat.mean()) / flat.std(), 0.0) for one, mask in zip(raw, part, strict=True)]


def compared(found: Any, wanted: list[Any]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(list(other), abs=1e-6)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_reinforce_plus_plus_sums_what_is_to_come(gamma: float) -> None:
    samples = made(1)
    rewards = [rewards_by_hand(sample) for sample in samples]
    returns = [
        np.array([sum(gamma ** (s - t) * r[s] for s in range(t, len(r))) for t in range(len(r))]) for r in rewards
    ]
    settings = {"advantage_estimator": "reinforce_plus_plus", "advantage_options": {"gamma": gamma}, "kl_coef": COEF}
    estimator = build_advantages(AlgorithmConfig(**settings))  # type: ignore[arg-type]
    compared(estimate_with_kl(estimator, samples, kl_in_rewards(samples)), whitened(returns, samples))


@pytest.mark.parametrize(("gamma", "lambd"), [(1.0, 1.0), (0.95, 0.9)])
def test_gae_sees_it_token_by_token(gamma: float, lambd: float) -> None:
    samples, rng = made(2), random.Random(7)
    values = [[rng.gauss(0, 1) for _ in sample.response_tokens] for sample in samples]
    raw = []
    for sample, value in zip(samples, values, strict=True):
        places = [place for place, one in enumerate(sample.loss_mask) if one]
        r, v = rewards_by_hand(sample)[places], np.array([*(value[place] for place in places), 0.0])
        delta = r + gamma * v[1:] - v[:-1]
        found = np.zeros(len(value))
        for t, place in enumerate(places):
            found[place] = sum((gamma * lambd) ** (later - t) * delta[later] for later in range(t, len(places)))
        raw.append(found)
    options = {"gamma": gamma, "lambd": lambd}
    settings = {"advantage_estimator": "gae", "advantage_options": options, "kl_coef": COEF}
    estimator = build_advantages(AlgorithmConfig(**settings))  # type: ignore[arg-type]
    advantages, returns = estimate_with_values(estimator, samples, values, kl_in_rewards(samples))
    compared(advantages, whitened(raw, samples))
    learnt = [
        np.where(np.array(s.loss_mask, dtype=bool) & (s.reward is not None), one + np.array(v), 0.0)
        for s, one, v in zip(samples, raw, values, strict=True)
    ]
    compared(returns, learnt)


def test_the_mean_is_over_tokens_that_count() -> None:
    samples = made(3)
    kl = [
        (old - ref)
        for s in samples
        for old, ref, m in zip(s.logprobs_old or (), s.logprobs_ref or (), s.loss_mask, strict=True)
        if m
    ]
    assert mean_kl(kl_in_rewards(samples), samples) == {"train/kl_in_reward": pytest.approx(np.mean(kl), abs=1e-6)}
