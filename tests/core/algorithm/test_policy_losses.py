"""The built-in policy losses against closed forms in float64 numpy: values, and gradients of the log-probs."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from core.algorithm.aggregation import token_weights
from core.algorithm.kl import kl_estimate
from core.algorithm.loss import TokenInputs, build_loss
from core.config.sections.algorithm import AlgorithmConfig
from core.doors import LOSS

Numbers = NDArray[np.float64]
LENGTHS = [5, 1, 9, 3, 6]
OWNERS = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
LOW, HIGH, DUAL = 0.2, 0.28, 1.5
LONGEST = 12  # tokens of a response
CLIPS = {"eps_clip": LOW, "eps_clip_high": HIGH}
CASES: dict[str, dict[str, Any]] = {
    "clipped": {"loss": "clipped", **CLIPS},
    "dual clip": {"loss": "clipped", **CLIPS, "eps_clip_c": DUAL},
    "gspo": {"loss": "gspo", **CLIPS},
    "cispo": {"loss": "cispo", **CLIPS},
    "sapo": {"loss": "sapo", "loss_options": {"tau_positive": 1.5, "tau_negative": 2.5}},
    "policy_gradient": {"loss": "policy_gradient"},
}


def kinds_of(key: str) -> list[str]:
    """What a key of `algorithm` may be."""
    return list(get_args(AlgorithmConfig.model_fields[key].annotation))


def step(seed: int = 0) -> dict[str, Numbers]:
    """One global batch: policy near the old one, some tokens masked, one sample wholly."""
    rng = np.random.default_rng(seed)
    n = len(OWNERS)
    first = np.arange(n) == 0  # of a bad response, and much likelier than it was: the dual clip is for such
    mask = ((rng.random(n) < 0.8) & (OWNERS != 3)) | first
    old = -rng.random(n) * 3
    shift = rng.normal(0, 0.3, len(LENGTHS))[OWNERS]
    return {
        "weights": mask / mask.sum(),
        "advantages": np.where(OWNERS == 0, -1.0, rng.normal(0, 1, len(LENGTHS))[OWNERS]),
        "logprobs_old": old,
        "logprobs": old + shift + rng.normal(0, 0.4, n) + 2 * first,
        "logprobs_engine": old + rng.normal(0, 0.02, n),
        "logprobs_ref": old + rng.normal(0, 0.5, n),
    }


def closed_form(name: str, t: dict[str, Numbers]) -> tuple[float, Numbers]:
    """The loss and its derivative by each log-prob, from the formulas of the papers."""
    logp, a, w = t["logprobs"], t["advantages"], t["weights"]
    r = np.exp(logp - t["logprobs_old"])
    if name == "policy_gradient":
        return float((-a * logp * w).sum()), -a * w
    if name == "cispo":
        bounded = np.clip(r, 1 - LOW, 1 + HIGH)
        return float((-bounded * a * logp * w).sum()), -bounded * a * w
    if name == "sapo":
        tau = np.where(a > 0, 1.5, 2.5)
        gate = 1 / (1 + np.exp(-tau * (r - 1)))
        return float((-4 / tau * gate * a * w).sum()), -4 * gate * (1 - gate) * r * a * w
    if name == "gspo":
        loss, gradient = 0.0, np.zeros_like(w)
        for sample in range(len(LENGTHS)):
            mine = (sample == OWNERS) & (w > 0)
            if mine.any():
                s = np.exp((logp - t["logprobs_old"])[mine].mean())
                bounded = min(max(s, 1 - LOW), 1 + HIGH)
                losses = np.maximum(-s * a[mine], -bounded * a[mine])
                loss += float((losses * w[mine]).sum())
                free = -s * a[mine] >= -bounded * a[mine]
                gradient[mine] = (-s * a[mine] * free * w[mine]).sum() / mine.sum()
        return loss, gradient
    plain, clipped = -r * a, -np.clip(r, 1 - LOW, 1 + HIGH) * a
    value, free = np.maximum(plain, clipped), plain >= clipped
    if name == "dual clip":
        over = (a < 0) & (value > -DUAL * a)
        assert (over & (w > 0)).any()
        value, free = np.where(over, -DUAL * a, value), free & ~over
    return float((value * w).sum()), plain * free * w


def computed(settings: dict[str, Any], t: dict[str, Numbers], parts: list[list[int]] | None = None) -> Any:
    """Loss, gradient and metrics, over micro-batches of these samples in this order."""
    parts = parts or [list(range(len(LENGTHS)))]
    loss = build_loss(AlgorithmConfig(**settings))
    gradient, total, metrics = torch.zeros(len(OWNERS)), 0.0, dict[str, float]()
    for samples in parts:
        places = np.concatenate([np.flatnonzero(sample == OWNERS) for sample in samples])
        values = {k: torch.tensor(v[places], dtype=torch.float32) for k, v in t.items()}
        logprobs = values.pop("logprobs").requires_grad_()
        inputs = TokenInputs(**values, sample_index=torch.tensor(OWNERS[places]), num_samples=len(LENGTHS))
        value, found = loss(logprobs, torch.zeros(len(places)), inputs)
        value.backward()
        gradient[places] = logprobs.grad  # type: ignore[assignment]
        total += float(value.detach())
        for name, one in found.items():
            metrics[name] = (
                max(metrics.get(name, 0.0), float(one)) if "_max" in name else metrics.get(name, 0.0) + float(one)
            )
    return total, gradient.numpy(), metrics


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_values_and_gradients_equal_the_closed_form(name: str, seed: int) -> None:
    t = step(seed) | {}
    del t["logprobs_ref"]
    wanted, slope = closed_form(name, t)
    loss, gradient, metrics = computed(CASES[name], t)
    assert loss == pytest.approx(wanted, abs=1e-6)
    assert metrics["train/pg_loss"] == pytest.approx(wanted, abs=1e-6)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)
    assert (np.abs(slope) > 1e-3).any()


@pytest.mark.parametrize("name", CASES)
def test_neither_micro_batches_nor_the_order_of_samples_change_them(name: str) -> None:
    settings = CASES[name] | {"kl_loss_coef": 0.1, "kl_unbiased": True}
    whole = computed(settings, step())
    for parts in ([[4, 2, 0, 1, 3]], [[3], [1, 0], [4, 2]]):
        loss, gradient, metrics = computed(settings, step(), parts)
        assert loss == pytest.approx(whole[0], abs=1e-6)
        np.testing.assert_allclose(gradient, whole[1], atol=1e-6)
        assert metrics == pytest.approx(whole[2], abs=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_first_step_on_policy_has_the_plain_gradient(name: str) -> None:
    """Whatever clips: at ratio 1 all of them are the policy gradient, gspo's shared over its response."""
    t = {k: v for k, v in step().items() if k not in ("logprobs_old", "logprobs_ref")}
    _, gradient, metrics = computed(CASES[name], t)
    np.testing.assert_allclose(gradient, -t["advantages"] * t["weights"], atol=1e-6)
    assert metrics["train/pg_clipfrac"] == 0.0


def test_supervised_learning_is_the_cross_entropy_whatever_the_advantages() -> None:
    t = {k: v for k, v in step().items() if k not in ("logprobs_old", "logprobs_ref")}
    t["logprobs_engine"] = np.full(len(OWNERS), np.nan)  # no engine has seen the rows
    for parts in (None, [[4, 2, 0, 1, 3]], [[3], [1, 0], [4, 2]]):
        loss, gradient, metrics = computed({"loss": "sft"}, t, parts)
        assert loss == pytest.approx(-(t["logprobs"] * t["weights"]).sum(), abs=1e-6)
        np.testing.assert_allclose(gradient, -t["weights"], atol=1e-6)
        assert metrics["train/loss"] == pytest.approx(loss, abs=1e-6)
        assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("advantage_weight", [0.0, 0.5], ids=["the teacher alone", "rewards too"])
def test_distillation_is_the_clipped_loss_of_the_teachers_verdict(advantage_weight: float) -> None:
    t = step()
    gap = t["logprobs_old"] - t["logprobs_ref"]
    verdict = {**t, "advantages": advantage_weight * t["advantages"] - 2.0 * gap}
    del verdict["logprobs_ref"]
    wanted, slope = closed_form("clipped", verdict)
    options = {"coef": 2.0, "advantage_weight": advantage_weight}
    for parts in (None, [[3], [1, 0], [4, 2]]):
        loss, gradient, metrics = computed({"loss": "distillation", "loss_options": options, **CLIPS}, t, parts)
        assert loss == pytest.approx(wanted, abs=1e-6)
        np.testing.assert_allclose(gradient, slope, atol=1e-6)
        assert metrics["train/opd_reverse_kl"] == pytest.approx((gap * t["weights"]).sum(), abs=1e-6)
        assert "train/kl_loss" not in metrics


def test_the_mean_gradient_of_distillation_is_that_of_the_reverse_kl() -> None:
    """Over all tokens of a vocabulary by their probabilities, as samples of the policy would be."""
    torch.manual_seed(0)
    logits, teacher = torch.randn(8).requires_grad_(), torch.randn(8).log_softmax(0)
    logp = logits.log_softmax(0)
    ones = torch.ones(8)
    inputs = TokenInputs(logp.detach().exp(), ones, ones, torch.arange(8), 8, logprobs_ref=teacher)
    loss, _ = build_loss(AlgorithmConfig(loss="distillation"))(logp, ones, inputs)
    (found,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (wanted,) = torch.autograd.grad((logp.exp() * (logp - teacher)).sum(), logits)
    assert torch.allclose(found, wanted, atol=1e-6)


def test_all_built_ins_are_tested() -> None:
    assert {case["loss"] for case in CASES.values()} | {"sft", "distillation"} == set(LOSS.builtins)


@pytest.mark.parametrize("name", ["clipped", "dual clip", "gspo"])
def test_the_share_of_clipped_tokens(name: str) -> None:
    """Those whose log-prob has no slope though they have an advantage and count."""
    t = {k: v for k, v in step(1).items() if k != "logprobs_ref"}
    _, slope = closed_form(name, t)
    share = float(t["weights"][(slope == 0) & (t["weights"] > 0)].sum())
    assert 0 < share < 1
    assert computed(CASES[name], t)[2]["train/pg_clipfrac"] == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("unbiased", [False, True], ids=["plain", "unbiased"])
@pytest.mark.parametrize("kind", kinds_of("kl_loss_type"))
def test_the_kl_in_the_loss_and_its_gradient(kind: str, unbiased: bool) -> None:
    t = step() | {"advantages": np.zeros(len(OWNERS))}
    t["logprobs_ref"][0] = t["logprobs"][0] + 4.0  # where k3 is beyond the clamp
    t["weights"][0] = 0.1
    delta = t["logprobs"] - t["logprobs_ref"]
    k3, k3_slope = np.exp(-delta) - 1 + delta, 1 - np.exp(-delta)
    value, slope = {
        "k1": (delta, np.ones_like(delta)),
        "k2": (delta**2 / 2, delta),
        "k3": (k3, k3_slope),
        "low_var_kl": (np.minimum(k3, 10), k3_slope * (k3 < 10)),
    }[kind]
    assert k3.max() > 10
    if unbiased:
        ratio = np.exp(t["logprobs"] - t["logprobs_old"])
        value, slope = ratio * value, ratio * (value + slope)
    settings = {"kl_loss_coef": 0.5, "kl_loss_type": kind, "kl_unbiased": unbiased}
    loss, gradient, metrics = computed(settings, t)
    assert metrics["train/kl_loss"] == pytest.approx((value * t["weights"]).sum(), rel=1e-6)
    assert loss == pytest.approx(0.5 * (value * t["weights"]).sum(), rel=1e-6)
    np.testing.assert_allclose(gradient, 0.5 * slope * t["weights"], rtol=1e-6, atol=1e-6)


def test_the_unbiased_kl_of_stale_samples_has_the_gradient_of_the_kl() -> None:
    """Summed over all tokens of a vocabulary by the old policy's probabilities, as samples of it would be."""
    torch.manual_seed(0)
    logits, old, reference = torch.randn(8).requires_grad_(), torch.randn(8).softmax(0), torch.randn(8).log_softmax(0)
    logp = logits.log_softmax(0)
    estimate = old * torch.exp(logp - old.log()) * kl_estimate(logp - reference, "k3")
    (found,) = torch.autograd.grad(estimate.sum(), logits, retain_graph=True)
    (wanted,) = torch.autograd.grad((logp.exp() * (logp - reference)).sum(), logits, retain_graph=True)
    assert torch.allclose(found, wanted, atol=1e-6)
    (biased,) = torch.autograd.grad((old * kl_estimate(logp - reference, "k3")).sum(), logits)
    assert not torch.allclose(biased, wanted, atol=1e-2)


def mean_by_hand(kind: str, masks: list[Numbers], groups: list[int], losses: list[Numbers]) -> float:
    """Each mean as the page has it, sum by sum, over what has a token that counts."""
    sums = [float((mask * one).sum()) for mask, one in zip(masks, losses, strict=True)]
    lengths = [float(mask.sum()) for mask in masks]
    counted = [place for place, length in enumerate(lengths) if length]
    if kind == "token_mean":
        return sum(sums) / sum(lengths)
    if kind == "sample_mean":
        return float(np.mean([sums[place] / lengths[place] for place in counted]))
    if kind == "constant":
        return float(np.mean([sums[place] / LONGEST for place in counted]))
    prompts = [[place for place in counted if groups[place] == group] for group in {groups[p] for p in counted}]
    return float(np.mean([sum(sums[p] for p in own) / sum(lengths[p] for p in own) for own in prompts]))


@pytest.mark.parametrize("kind", kinds_of("loss_aggregation"))
def test_a_weighted_sum_is_the_mean_that_is_asked_for(kind: str) -> None:
    rng = np.random.default_rng(7)
    masks = [(rng.random(length) < 0.7).astype(float) for length in (*LENGTHS, 4, LONGEST)]
    masks[3][:] = 0  # the only sample of its prompt, and one of another
    masks[5][:] = 0
    groups, losses = [0, 0, 2, 4, 7, 7, 7], [rng.normal(size=len(mask)) for mask in masks]
    weights = token_weights([mask.tolist() for mask in masks], kind, groups, LONGEST)
    found = sum(float((weight * one).sum()) for weight, one in zip(weights, losses, strict=True))
    assert found == pytest.approx(mean_by_hand(kind, masks, groups, losses), abs=1e-6)


def test_prompts_count_the_same_or_each_token_a_constant() -> None:
    masks, groups = [[1], [1, 1, 1], [1, 0], [0, 0]], [4, 4, 2, 9]
    by_prompt = token_weights(masks, "prompt_mean", groups)
    assert [one.tolist() for one in by_prompt] == [[0.125], [0.125] * 3, [0.5, 0.0], [0.0, 0.0]]
    constant = token_weights(masks, "constant", groups, constant_length=10)
    assert [one.tolist() for one in constant] == [[pytest.approx(m / 30) for m in mask] for mask in masks]
    with pytest.raises(ValueError, match="wanted token_mean, sample_mean, prompt_mean or constant"):
        token_weights(masks, "median")
