from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from core.algorithm.aggregation import token_weights
from core.algorithm.kl import kl_estimate
from core.algorithm.loss import TokenInputs, build_loss
from core.config.sections.algorithm import AlgorithmConfig


def tokens(n: int, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "weights": torch.rand(n) / n,
        "advantages": torch.randn(n),
        "logprobs_engine": -torch.rand(n) * 3,
        "logprobs_old": -torch.rand(n) * 3,
        "logprobs_ref": -torch.rand(n) * 3,
        "sample_index": torch.zeros(n, dtype=torch.int64),
    }


def inputs_of(t: dict[str, torch.Tensor], **changes: torch.Tensor | None) -> TokenInputs:
    return TokenInputs(**{**t, **changes}, num_samples=1)  # type: ignore[arg-type]


def test_clipped_surrogate_equals_the_formula_token_by_token() -> None:
    config = AlgorithmConfig(eps_clip=0.2, eps_clip_high=0.28)
    t = tokens(50)
    logprobs = t["logprobs_old"] + torch.randn(50) * 0.5
    loss, metrics = build_loss(config)(logprobs, None, inputs_of(t, logprobs_ref=None))
    expected, clipped = 0.0, 0.0
    for i in range(50):
        ratio = float(torch.exp(logprobs[i] - t["logprobs_old"][i]))
        a = float(t["advantages"][i])
        expected += max(-ratio * a, -min(max(ratio, 0.8), 1.28) * a) * float(t["weights"][i])
        binds = (a > 0 and ratio > 1.28) or (a < 0 and ratio < 0.8)
        clipped += binds * float(t["weights"][i])
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert 0 < clipped < float(t["weights"].sum())
    assert float(metrics["train/pg_clipfrac"]) == pytest.approx(clipped, rel=1e-5)


def test_every_metric_token_by_token() -> None:
    """Three tokens that count and one that is masked out, whose gap to the engine would be the largest."""
    old = torch.tensor([-1.0, -2.0, -0.5, -3.0])
    logprobs = old + torch.tensor([1.0, -1.0, 0.0, 1.0])
    inputs = TokenInputs(
        weights=torch.tensor([0.5, 0.25, 0.125, 0.0]),
        advantages=torch.tensor([1.0, 1.0, -1.0, 1.0]),
        logprobs_engine=torch.tensor([-1.25, -2.5, -0.25, 5.0]),
        sample_index=torch.tensor([0, 0, 1, 1]),
        num_samples=2,
        logprobs_old=old,
        logprobs_ref=logprobs - torch.tensor([0.5, 0.0, -0.25, 7.0]),
    )
    config = AlgorithmConfig(eps_clip=0.2, kl_loss_type="k1", kl_loss_coef=0.1, entropy_coef=0.01)
    loss, metrics = build_loss(config)(logprobs, torch.tensor([2.0, 4.0, 8.0, 16.0]), inputs)
    policy = 0.5 * -1.2 + 0.25 * -math.exp(-1) + 0.125 * 1
    kl, entropy = 0.5 * 0.5 - 0.125 * 0.25, 1.0 + 1.0 + 1.0
    assert {name: float(value) for name, value in metrics.items()} == {
        "train/pg_loss": pytest.approx(policy),
        "train/pg_clipfrac": 0.5,
        "train/ppo_kl": -0.5 + 0.25,
        "train/train_rollout_logprob_abs_diff": 0.5 * 0.25 + 0.25 * 0.5 + 0.125 * 0.25,
        "train/train_rollout_logprob_abs_diff_max": 0.5,
        "train/kl_loss": pytest.approx(kl),
        "train/entropy_loss": entropy,
        "train/loss": pytest.approx(policy + 0.1 * kl - 0.01 * entropy),
    }
    assert float(loss) == float(metrics["train/loss"])


def test_a_micro_batch_without_tokens_adds_nothing() -> None:
    none = torch.zeros(0)
    loss, metrics = build_loss(AlgorithmConfig())(none, none, TokenInputs(none, none, none, none.long(), num_samples=0))
    assert float(loss) == 0.0
    assert set(metrics) == {
        *("train/pg_loss", "train/pg_clipfrac", "train/ppo_kl", "train/entropy_loss", "train/loss"),
        *("train/train_rollout_logprob_abs_diff", "train/train_rollout_logprob_abs_diff_max"),
    }
    assert all(value.shape == () and float(value) == 0.0 for value in metrics.values())


def test_on_policy_gradient_is_the_plain_policy_gradient() -> None:
    t = tokens(20)
    logprobs = t["logprobs_old"].clone().requires_grad_()
    inputs = inputs_of(t, logprobs_old=None, logprobs_ref=None)
    loss, metrics = build_loss(AlgorithmConfig())(logprobs, None, inputs)
    loss.backward()
    assert torch.allclose(logprobs.grad, -t["advantages"] * t["weights"])  # type: ignore[arg-type]
    assert float(metrics["train/ppo_kl"]) == 0.0


def test_kl_to_itself_is_zero_and_kl_and_entropy_enter_the_loss() -> None:
    t = tokens(20)
    config = AlgorithmConfig(kl_loss_coef=0.1, entropy_coef=0.01)
    logprobs, entropy = t["logprobs_old"], torch.rand(20)
    same = inputs_of(t, logprobs_ref=logprobs)
    assert float(build_loss(config)(logprobs, entropy, same)[1]["train/kl_loss"]) == 0.0
    loss, m = build_loss(config)(logprobs, entropy, inputs_of(t))
    expected = m["train/pg_loss"] + 0.1 * m["train/kl_loss"] - 0.01 * m["train/entropy_loss"]
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    delta = t["logprobs_old"] - t["logprobs_ref"]
    by_hand = {"train/kl_loss": torch.exp(-delta) - 1 + delta, "train/entropy_loss": entropy, "train/ppo_kl": 0 * delta}
    by_hand["train/pg_loss"] = -t["advantages"]
    for name, per_token in by_hand.items():
        assert float(m[name]) == pytest.approx(float((per_token * t["weights"]).sum()), rel=1e-4, abs=1e-7), name


def test_kl_estimators_agree_in_the_mean_with_the_true_kl() -> None:
    torch.manual_seed(0)
    p, q = torch.softmax(torch.randn(8), 0), torch.softmax(torch.randn(8) * 0.3, 0)
    true = float((p * (p / q).log()).sum())
    delta = (p / q).log()
    assert float((p * kl_estimate(delta, "k1")).sum()) == pytest.approx(true, rel=1e-5)
    assert float((p * kl_estimate(delta, "k3")).sum()) == pytest.approx(true, rel=1e-5)
    assert torch.equal(kl_estimate(delta, "k2"), delta**2 / 2)
    with pytest.raises(ValueError, match="wanted k1, k2, k3 or low_var_kl"):
        kl_estimate(delta, "k4")


def test_loss_and_metrics_add_up_over_micro_batches() -> None:
    t = tokens(30)
    logprobs = t["logprobs_old"] + 0.1
    policy_loss = build_loss(AlgorithmConfig(kl_loss_coef=0.1))
    whole, metrics = policy_loss(logprobs, None, inputs_of(t))
    parts = [
        policy_loss(logprobs[s], None, inputs_of({k: v[s] for k, v in t.items()})) for s in (slice(0, 7), slice(7, 30))
    ]
    assert float(sum(loss for loss, _ in parts)) == pytest.approx(float(whole), rel=1e-5)
    for name, value in metrics.items():
        values = [float(m[name]) for _, m in parts]
        assert (max(values) if name.endswith("_max") else sum(values)) == pytest.approx(
            float(value), rel=1e-4, abs=1e-7
        )


def weights(masks: list[list[int]], aggregation: str) -> list[list[float]]:
    return [one.tolist() for one in token_weights(masks, aggregation)]


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("token_mean", [[0.25, 0.0, 0.25], [0.25, 0.25], [0.0]]),
        ("sample_mean", [[0.25, 0.0, 0.25], [0.25, 0.25], [0.0]]),
    ],
)
def test_token_weights(aggregation: str, expected: list[list[float]]) -> None:
    assert weights([[1, 0, 1], [1, 1], [0]], aggregation) == expected


def test_token_weights_differ_where_lengths_differ_and_always_sum_to_one() -> None:
    masks = [[1], [1, 1, 1]]
    assert weights(masks, "token_mean") == [[0.25], [0.25] * 3]
    assert weights(masks, "sample_mean") == [[0.5], [pytest.approx(1 / 6)] * 3]
    assert weights([[0], []], "token_mean") == [[0.0], []]
    assert weights([[0, 1], []], "token_mean") == [[0.0, 1.0], []]
    assert {one.dtype for one in token_weights(masks, "token_mean")} == {np.dtype(np.float32)}
