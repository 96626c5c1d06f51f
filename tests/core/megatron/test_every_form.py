"""Every loss, mean, KL and importance form learns the same however samples are ordered, packed and split over ranks.

Compared are losses and metrics, log-probs, and the gradients themselves, before any optimiser step: Adam's first steps
have the size of the learning rate whatever the size of a gradient, and would show the rounding of the smallest ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

from core.config.sections.algorithm import AlgorithmConfig
from core.doors import LOSS
from tests.support.ranks import run_ranks
from tests.support.same_updates import check_same
from tests.support.tiny_models import tiny_model

BOUNDS = {"importance_low": 0.8, "importance_high": 1.3}
FORMS: dict[str, dict[str, Any]] = {
    "clipped": {"loss_aggregation": "token_mean", "importance": "none", "kl_loss_type": "k3"},
    "dual clip": {"eps_clip_c": 1.1, "loss_aggregation": "sample_mean", "importance": "tis", "kl_loss_type": "k1"},
    "gspo": {"loss": "gspo", "loss_aggregation": "sample_mean", "importance": "sequence", "kl_unbiased": True},
    "cispo": {"loss": "cispo", "loss_aggregation": "prompt_mean", "importance": "icepop", "kl_loss_type": "low_var_kl"},
    "sapo": {"loss": "sapo", "loss_aggregation": "constant", "importance": "mis", "kl_loss_type": "k2"},
    "policy_gradient": {"loss": "policy_gradient", "loss_aggregation": "prompt_mean", "opsm_delta": 0.01},
    "distillation": {"loss": "distillation", "loss_options": {"advantage_weight": 0.5}},
    "sft": {"loss": "sft", "loss_aggregation": "sample_mean"},
}
OTHER_ROWS = {"max_tokens_per_micro_batch": 40, "share_prompts": False}
# ranks, sections, whether samples come in the opposite order
LAYOUTS: dict[str, tuple[int, dict[str, Any], bool]] = {
    "plain": (1, {}, False),
    "other rows": (1, {"train": OTHER_ROWS}, True),
    "pp2-dp2": (4, {"placement": {"pipeline_parallel": 2}, "train": OTHER_ROWS}, False),
    "sp2-cp2": (4, {"placement": {"tensor_parallel": 2, "sequence_parallel": True, "context_parallel": 2}}, True),
}
SEED = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forms")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, list[Any]]:
    model, found = str(tiny_model("qwen3-tied", folder / "model")), dict[str, list[Any]]()
    for size in (1, 4):
        cases = {
            f"{form} {layout}": {
                "model": model,
                "config": _config(form, sections),
                "actions": [["learn_from", SEED, str(folder / f"{form} {layout}"), backwards]],
            }
            for form in FORMS
            for layout, (ranks, sections, backwards) in LAYOUTS.items()
            if ranks == size
        }
        found |= run_ranks(folder / f"ranks{size}", size, cases)
    return found


def _config(form: str, sections: dict[str, Any]) -> dict[str, Any]:
    """One optimiser step, so that it has all samples whatever their order."""
    train = {"num_steps_per_rollout": 1, **sections.get("train", {})}
    return {**sections, "train": train, "algorithm": {**BOUNDS, **FORMS[form]}}


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "plain"])
@pytest.mark.parametrize("form", FORMS)
def test_same_losses_log_probs_and_gradients(
    outcomes: dict[str, list[Any]], folder: Path, form: str, layout: str
) -> None:
    assert isinstance(outcomes[f"{form} {layout}"][0], dict), outcomes[f"{form} {layout}"]
    found, wanted = outcomes[f"{form} {layout}"], outcomes[f"{form} plain"]
    check_same(found, wanted)
    ours, plain = load_file(folder / f"{form} {layout}"), load_file(folder / f"{form} plain")
    assert ours.keys() == plain.keys()
    norm = _norm(plain)
    assert norm > 1e-3
    assert _norm({name: ours[name] - plain[name] for name in plain}) < 1e-5 * norm


def _norm(tensors: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([tensor.double().norm() for tensor in tensors.values()]).norm())


def test_bounds_and_clips_are_met(outcomes: dict[str, list[Any]]) -> None:
    """Else the forms would be one and the same."""
    for form, share in (("clipped", "pg"), ("dual clip", "tis"), ("cispo", "tis"), ("policy_gradient", "opsm")):
        assert 0 < outcomes[f"{form} plain"][0]["metrics"][f"train/{share}_clipfrac"] < 1


def test_no_form_is_missing() -> None:
    assert {form.get("loss", "clipped") for form in FORMS.values()} == set(LOSS.builtins)
    for key in ("loss_aggregation", "importance", "kl_loss_type"):
        default = AlgorithmConfig.model_fields[key].default
        kinds = set(get_args(AlgorithmConfig.model_fields[key].annotation))
        assert {form.get(key, default) for form in FORMS.values()} == kinds
