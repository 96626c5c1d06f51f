"""Weights for the gap between engine and trainer, against the formulas in float64 numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from core.algorithm.importance import effective_share
from core.algorithm.loss import TokenInputs, build_loss
from core.config.sections.algorithm import AlgorithmConfig
from tests.core.algorithm.test_policy_losses import LENGTHS, OWNERS, Numbers, computed, kinds_of, step

BOUNDS = {"importance_low": 0.8, "importance_high": 1.3}
LOSSES = ["clipped", "gspo", "cispo", "sapo", "policy_gradient"]


def far_step() -> dict[str, Numbers]:
    """One global batch, whose engine is far from the old policy at some tokens."""
    t = {name: values for name, values in step().items() if name != "logprobs_ref"}
    t["logprobs_engine"] = t["logprobs_old"] + np.random.default_rng(5).normal(0, 0.25, len(OWNERS))
    return t


def weights_of(kind: str, t: dict[str, Numbers]) -> tuple[Numbers, Numbers]:
    """The ratio of each token, and what is made of it."""
    gap = (t["logprobs_old"] - t["logprobs_engine"]) * (t["weights"] > 0)
    if kind in ("sequence", "mis"):
        gap = np.array([gap[owner == OWNERS].sum() for owner in OWNERS])
    ratio = np.exp(gap)
    low, high = BOUNDS.values()
    if kind in ("icepop", "mis"):
        return ratio, np.where((ratio < low) | (ratio > high), 0.0, ratio)
    return ratio, np.clip(ratio, low, high)


@pytest.mark.parametrize("kind", [kind for kind in kinds_of("importance") if kind != "none"])
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradient_are_those_of_weighted_advantages(loss: str, kind: str) -> None:
    t = far_step()
    ratio, weight = weights_of(kind, t)
    share = float(t["weights"][(ratio < 0.8) | (ratio > 1.3)].sum())
    assert 0 < share < 1
    wanted = computed({"loss": loss}, {**t, "advantages": t["advantages"] * weight})
    value, gradient, metrics = computed({"loss": loss, "importance": kind, **BOUNDS}, t)
    assert value == pytest.approx(wanted[0], abs=1e-6)
    np.testing.assert_allclose(gradient, wanted[1], atol=1e-6)
    means = {
        "train/tis": ratio,
        "train/tis_weight": weight,
        "train/tis_weight_squared": weight**2,
    }
    for name, values in means.items():
        assert metrics[name] == pytest.approx((values * t["weights"]).sum(), rel=1e-5)
    assert metrics["train/tis_clipfrac"] == pytest.approx(share, abs=1e-6)
    assert 0 < effective_share(metrics)["train/tis_ess"] < 1


@pytest.mark.parametrize("kind", ["tis", "sequence"])
def test_neither_micro_batches_nor_the_order_of_samples_change_it(kind: str) -> None:
    settings = {"loss": "clipped", "importance": kind, **BOUNDS, "opsm_delta": 0.05}
    whole = computed(settings, far_step())
    for parts in ([[4, 2, 0, 1, 3]], [[3], [1, 0], [4, 2]]):
        value, gradient, metrics = computed(settings, far_step(), parts)
        assert value == pytest.approx(whole[0], abs=1e-6)
        np.testing.assert_allclose(gradient, whole[1], atol=1e-6)
        assert metrics == pytest.approx(whole[2], abs=1e-5)


def test_where_both_agree_the_weight_is_one() -> None:
    t = far_step()
    t["logprobs_engine"] = t["logprobs_old"].copy()
    plain, metrics = computed({"loss": "clipped"}, t), computed({"loss": "clipped", "importance": "tis"}, t)[2]
    assert metrics["train/pg_loss"] == pytest.approx(plain[2]["train/pg_loss"], abs=1e-7)
    assert (metrics["train/tis"], metrics["train/tis_clipfrac"]) == pytest.approx((1.0, 0.0), abs=1e-6)
    assert metrics["train/engine_kl"] == pytest.approx(0.0, abs=1e-6)
    assert effective_share(metrics)["train/tis_ess"] == pytest.approx(1.0, abs=1e-6)


def test_the_engine_kl_is_that_of_the_two() -> None:
    t = far_step()
    gap = t["logprobs_old"] - t["logprobs_engine"]
    metrics = computed({"loss": "clipped", "importance": "tis"}, t)[2]
    assert metrics["train/engine_kl"] == pytest.approx(((np.expm1(gap) - gap) * t["weights"]).sum(), rel=1e-4)


def test_a_response_that_the_policy_has_left_is_masked_where_its_advantage_is_negative() -> None:
    t = far_step()
    counted = t["weights"] > 0
    fallen = [(t["logprobs_engine"] - t["logprobs"])[(sample == OWNERS) & counted] for sample in range(len(LENGTHS))]
    drift = np.array([values.mean() if len(values) else 0.0 for values in fallen])[OWNERS]
    delta = float(np.sort(np.unique(drift[(t["advantages"] < 0) & counted]))[0]) - 0.01
    masked = (t["advantages"] < 0) & (drift > delta)
    assert 0 < t["weights"][masked].sum() < 1
    settings: dict[str, Any] = {"loss": "policy_gradient", "opsm_delta": max(delta, 1e-3)}
    _, gradient, metrics = computed(settings, t)
    masked = (t["advantages"] < 0) & (drift > max(delta, 1e-3))
    np.testing.assert_allclose(gradient, -t["advantages"] * t["weights"] * ~masked, atol=1e-6)
    assert metrics["train/opsm_clipfrac"] == pytest.approx(t["weights"][masked].sum(), abs=1e-6)


def test_a_token_out_of_all_bounds_stays_finite() -> None:
    loss = build_loss(AlgorithmConfig(importance="sequence"))
    logprobs = torch.full((2,), -200.0, requires_grad=True)
    inputs = TokenInputs(
        weights=torch.tensor([0.5, 0.5]),
        advantages=torch.ones(2),
        logprobs_engine=torch.tensor([0.0, -500.0]),
        sample_index=torch.tensor([0, 1]),
        num_samples=2,
    )
    value, metrics = loss(logprobs, torch.zeros(2), inputs)
    assert torch.isfinite(value)
    assert all(torch.isfinite(one) for one in metrics.values())
