"""Log-probs as transformers computes them, and weights in and out of every layout bit for bit."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import modelcfg
from tests.support.quantise import quantise
from tests.support.rank_main import make_samples
from tests.support.ranks import run_ranks
from tests.support.tiny_models import (
    CARRIES,
    EXPERTS,
    KINDS,
    OWN_HEADS,
    POST_NORMS,
    SEEING,
    SEEING_EXPERTS,
    SIGMOID_EXPERTS,
    SINKS,
    STATEFUL,
    WHOLE_NORMS,
    YARN,
    reference_model,
    tiny_model,
    with_layer_behind,
    with_stacked_experts,
)

SCALED = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
NEWER = (WHOLE_NORMS, STATEFUL, SEEING, SINKS)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        kind: (kind, {})
        for kind in (
            *KINDS,
            POST_NORMS,
            OWN_HEADS,
            CARRIES,
            EXPERTS,
            *SIGMOID_EXPERTS,
            WHOLE_NORMS,
            STATEFUL,
            SEEING,
            SINKS,
        )
    },
    "qwen3_5-tied": ("qwen3_5-tied", {}),
    SEEING_EXPERTS: (SEEING_EXPERTS, {}),
    "glm4_moe_lite": ("glm4_moe_lite", {}),
    "direct-queries": ("deepseek_v3", {"q_lora_rank": None, "rope_parameters": {"rope_type": "default"}}),
    "yarn-rope": ("llama", {"rope_parameters": {**YARN, "beta_fast": 4.0, "truncate": False}}),
    "linear-rope": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0}}),
    "scaled-rope": ("llama", {"rope_parameters": SCALED}),
    "qwen3-fp8": ("qwen3", {}),
    "deepseek_v3-packed": ("deepseek_v3", {}),
    "gpt_oss-mxfp4": (SINKS, {"intermediate_size": 64}),
    "odd-vocab": ("llama", {"vocab_size": 509}),
    "odd-vocab-tied": ("qwen2-tied", {"vocab_size": 509}),
}
LAYOUTS = {
    "tp1": (1, {}),
    "tp2": (2, {"placement": {"tensor_parallel": 2}}),
    "pp2": (2, {"placement": {"pipeline_parallel": 2}}),
    "ep2": (2, {"placement": {"expert_parallel": 2}}),
    "tp2-ep2": (2, {"placement": {"tensor_parallel": 2, "sequence_parallel": True, "expert_parallel": 2}}),
    "tp2-etp2": (2, {"placement": {"tensor_parallel": 2, "sequence_parallel": True, "expert_tensor_parallel": 2}}),
    "pp2-ep2": (4, {"placement": {"pipeline_parallel": 2, "expert_parallel": 2}}),
    "tp2-ep2-etp2": (
        4,
        {
            "placement": {
                **{"tensor_parallel": 2, "sequence_parallel": True},
                **{"expert_parallel": 2, "expert_tensor_parallel": 2},
            }
        },
    ),
    "tp4": (4, {"placement": {"tensor_parallel": 4}}),  # more ranks than query groups
}
WITH_EXPERTS = (EXPERTS, *SIGMOID_EXPERTS, WHOLE_NORMS, STATEFUL, SEEING_EXPERTS, SINKS)
# a layout changes nothing of what is new
ONE_RANK = ("yarn-rope", "linear-rope", "direct-queries", "glm4_moe_lite", "qwen3_5-tied")
QUANTISED = {"qwen3-fp8": "fp8", "deepseek_v3-packed": "packed", "gpt_oss-mxfp4": "mxfp4"}
FORMS = {**dict.fromkeys(QUANTISED, "quantised"), SEEING_EXPERTS: "stacked"}  # in which the trainer reads them
FOUR_RANKS = ("qwen2", "odd-vocab")
TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("huggingface")
    for name, (kind, changes) in MODELS.items():
        tiny_model(kind, root / "models" / name, **changes)
        if kind in (CARRIES, STATEFUL, SEEING, *SIGMOID_EXPERTS):
            with_layer_behind(root / "models" / name)
        if name == SEEING_EXPERTS:
            with_stacked_experts(tiny_model(kind, root / "stacked" / name))
        if name in QUANTISED:
            quantise(root / "models" / name, root / "quantised" / name, QUANTISED[name])
    return root


def _possible(model: str, layout: str) -> bool:
    """Few models on four ranks, and one of two families with the same experts; experts are shared out over ranks."""
    if model in ONE_RANK:
        return layout == "tp1"
    if layout == "tp2-ep2":  # a norm needs all heads
        return MODELS[model][0] in WITH_EXPERTS and model != WHOLE_NORMS
    if "etp2" in layout:  # each of its ranks would add a bias
        return MODELS[model][0] in WITH_EXPERTS and MODELS[model][0] not in (WHOLE_NORMS, SINKS)
    if "ep2" in layout:
        return model in WITH_EXPERTS and (layout == "ep2" or model != SEEING_EXPERTS)
    if layout == "tp2" and MODELS[model][0] in WITH_EXPERTS:
        return False
    if model in QUANTISED:
        return layout in ("tp1", "tp2")
    return layout != "tp4" or model in FOUR_RANKS


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, list[Any]]:
    result: dict[str, list[Any]] = {}
    for size in (1, 2, 4):
        cases = {
            f"{model}/{layout}": {
                "model": str(folder / FORMS.get(model, "models") / model),
                "config": {**config, "algorithm": {"kl_loss_coef": 0.0}},
                "actions": [["log_probs", 0], ["buckets", 60_000], ["save_hf", str(folder / "out" / model / layout)]],
            }
            for layout, (layout_size, config) in LAYOUTS.items()
            for model in MODELS
            if layout_size == size and _possible(model, layout)
        }
        if size == 1:
            cases["warm"] = {**cases["llama/tp1"], "config": {"rollout": {"temperature": TEMPERATURE}}}
            cases["warm"]["actions"] = [["log_probs", 0]]
        result |= run_ranks(folder / f"ranks{size}", size, cases)
    return result


def _reference(model_dir: Path, temperature: float = 1.0) -> list[list[float]]:
    model = reference_model(model_dir)
    result = []
    for sample in make_samples(0):
        tokens = torch.tensor([[*sample.prompt_tokens, *sample.response_tokens]])
        with torch.no_grad():
            table = (model(tokens).logits[0] / temperature).log_softmax(-1)
        first = len(sample.prompt_tokens) - 1
        result.append([float(table[first + i, token]) for i, token in enumerate(sample.response_tokens)])
    return result


PAIRS = [(model, layout) for layout in LAYOUTS for model in MODELS if _possible(model, layout)]
every_pair = pytest.mark.parametrize(("model", "layout"), PAIRS, ids=[f"{m}-{x}" for m, x in PAIRS])


@every_pair
def test_log_probs_match_transformers(outcomes: dict[str, list[Any]], folder: Path, model: str, layout: str) -> None:
    wanted = _reference(folder / "models" / model)
    found = outcomes[f"{model}/{layout}"][0]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_temperature_scales_logits(outcomes: dict[str, list[Any]], folder: Path) -> None:
    for ours, theirs in zip(outcomes["warm"][0], _reference(folder / "models" / "llama", TEMPERATURE), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


@every_pair
def test_weights_come_back_bit_for_bit(outcomes: dict[str, list[Any]], folder: Path, model: str, layout: str) -> None:
    assert len(outcomes[f"{model}/{layout}"]) == 3, outcomes[f"{model}/{layout}"]
    wanted = load_file(folder / "models" / model / "model.safetensors")
    written = folder / "out" / model / layout
    found = load_file(written / "model.safetensors")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    config = json.loads((written / "config.json").read_text())
    assert config["dtype"] == config.get("text_config", config)["dtype"] == "float32"
    assert "quantization_config" not in config


@every_pair
def test_buckets_are_bounded_and_in_one_order(
    outcomes: dict[str, list[Any]], folder: Path, model: str, layout: str
) -> None:
    """Experts that are shared out come in the order of their places, but for parts of one tensor; what a model
    directory carries does not come.
    """
    buckets, alone = outcomes[f"{model}/{layout}"][1], outcomes[f"{model}/tp1"][1]
    assert all(len(bucket) == 1 or sum(4 * numel for _, numel, _ in bucket) <= 60_000 for bucket in buckets)
    assert (buckets == alone) == ("-ep2" not in f"-{layout}" or MODELS[model][0] == SINKS)
    sent, wanted = ({name: rest for bucket in found for name, *rest in bucket} for found in (buckets, alone))
    assert sent == wanted
    shape = modelcfg.from_hf(json.loads((folder / "models" / model / "config.json").read_text()))
    assert {name: numel for name, (numel, _) in sent.items()} == {
        name: prod(size) for name, size in modelcfg.hf_tensors(shape).items()
    }


def test_saved_directory_loads_in_transformers(outcomes: dict[str, list[Any]], folder: Path) -> None:
    assert outcomes
    written = folder / "out" / "qwen3" / "tp2"
    assert _reference(written) == _reference(folder / "models" / "qwen3")
