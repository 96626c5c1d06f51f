"""Adapters of real trainers: their gradients, their layouts, their bytes, what is saved, sent and exported of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import modelcfg
from core.config.sections.lora import LoraConfig
from core.megatron.layers.merging import merged
from core.megatron.state.stored_adapters import StoredAdapters
from core.pretrained.peft_directory import write_peft
from tests.support.ranks import run_ranks
from tests.support.same_updates import check_same
from tests.support.tiny_models import EXPERTS, POST_NORMS, SEEING, tiny_models

LORA = {"rank": 4, "alpha": 8}
HIDDEN = 64
WHOLE_RANK = {"rank": HIDDEN, "targets": ["q_proj", "up_proj"]}
ATTENTION = {"rank": 8, "alpha": 4, "targets": ["q_proj", "v_proj", "o_proj"]}
LATENT = {"rank": 3, "targets": ["q_a_proj", "kv_b_proj", "o_proj"]}
STATES = {"rank": 3, "targets": ["in_proj_qkv", "in_proj_a", "out_proj"]}
BF16 = {"model": {"dtype": "bfloat16"}}
# a projection that is two in one, and one that is put in another order
IN_ORDER = {"fused": (POST_NORMS, {"rank": 3, "targets": ["gate_up_proj", "o_proj"]}), "states": (SEEING, STATES)}
TWO = {"trainers_per_node": 2}
TP2 = {"trainers_per_node": 2, "tensor_parallel": 2}
SFT = {"algorithm": {"loss": "sft", "kl_loss_coef": 0.0, "entropy_coef": 0.0}}
UPDATES = [["update", 0], ["update", 1]]
KIND = "qwen3-tied"
# kind of the model, number of ranks, adapters, run file
PLANS: dict[str, tuple[str, int, dict[str, Any], dict[str, Any]]] = {
    "bf16": (KIND, 1, LORA, BF16),
    "bf16-shared": (KIND, 1, LORA, {**BF16, "train": {"use_distributed_optimizer": True}}),
    "bf16-streamed": (KIND, 1, LORA, {**BF16, "train": {"optimizer_state": "streamed"}}),
    "post-norms": (POST_NORMS, 1, LORA, BF16),
    "experts": (EXPERTS, 1, ATTENTION, BF16),
    "latent": ("deepseek_v3", 1, LATENT, BF16),
    "bf16-dp2-shared": (KIND, 2, LORA, {**BF16, "train": {"use_distributed_optimizer": True}, "placement": TWO}),
    "bf16-pp2": (KIND, 2, LORA, {**BF16, "placement": {**TWO, "pipeline_parallel": 2}}),
    "bf16-tp2": (KIND, 2, LORA, {**BF16, "placement": TP2}),
    "bf16-tp2-dp2-shared": (
        KIND,
        4,
        LORA,
        {**BF16, "train": {"use_distributed_optimizer": True}, "placement": {**TP2, "trainers_per_node": 4}},
    ),
    "experts-ep2": (EXPERTS, 2, ATTENTION, {**BF16, "placement": {**TWO, "expert_parallel": 2}}),
    "experts-tp2-etp2": (
        EXPERTS,
        2,
        ATTENTION,
        {**BF16, "placement": {**TP2, "sequence_parallel": True, "expert_tensor_parallel": 2}},
    ),
    "post-norms-tp2": (POST_NORMS, 2, LORA, {**BF16, "placement": TP2}),
    "states-tp2": (SEEING, 2, STATES, {**BF16, "placement": TP2}),
}
LAYOUTS = {
    "dp2": {},
    "dp2-shared": {"train": {"use_distributed_optimizer": True}},
    "pp2": {"placement": {"pipeline_parallel": 2}},
    "tp2": {"placement": {"tensor_parallel": 2}},
    "sp2": {"placement": {"tensor_parallel": 2, "sequence_parallel": True}},
}
WRITTEN = ("one", "biased", "pp2", "tp2", "sp2", "tp2-dp2-shared")


def with_lora(config: dict[str, Any], lora: dict[str, Any]) -> dict[str, Any]:
    return {**config, "train": {**config.get("train", {}), "lora": lora}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lora")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, list[Any]]:
    kinds = dict.fromkeys((KIND, "qwen2", *(kind for kind, *_ in PLANS.values())))
    models = tiny_models(kinds, folder)
    ours, found = {"model": models[KIND]}, dict[str, list[Any]]()
    lora = {**ours, "config": with_lora({}, LORA)}

    def off_plan(size: int) -> dict[str, Any]:
        return {
            f"plan {name}": {"model": models[kind], "config": with_lora(config, its), "actions": ["off_plan", *UPDATES]}
            for name, (kind, ranks, its, config) in PLANS.items()
            if ranks == size
        }

    def writes(name: str) -> list[Any]:
        return [*UPDATES, ["log_probs", 0], ["save", str(folder / name)], ["save_hf", str(folder / f"{name}-hf")]]

    exported = (str(folder / "biased"), str(folder / "biased-beside"))
    biased = {"model": models["qwen2"], "config": with_lora({}, ATTENTION)}
    alone = {
        "base": {**ours, "actions": [["log_probs", 1], ["dump_gradients", str(folder / "base-gradients")]]},
        "begun": {**lora, "actions": [["log_probs", 1], ["dump_gradients", str(folder / "lora-gradients")]]},
        "begun, whole rank": {
            **ours,
            "config": with_lora({}, WHOLE_RANK),
            "actions": [["save", str(folder / "whole")], ["dump_gradients", str(folder / "whole-gradients")]],
        },
        "one": {**lora, "actions": [*writes("one"), "park", ["update", 2]]},
        "biased": {**biased, "actions": [*writes("biased"), ["export_beside", *exported]]},
        "sft": {**ours, "config": {**with_lora({}, LORA), **SFT}, "actions": [["update", 0], ["update", 0]]},
        "recompute": {**ours, "config": with_lora({"train": {"recompute": "full"}}, LORA), "actions": UPDATES},
    }
    for name, (kind, its) in IN_ORDER.items():
        alone[name] = {"model": models[kind], "config": with_lora({}, its), "actions": writes(name)}
    found |= run_ranks(folder / "ranks1", 1, alone | off_plan(1))
    split = {
        name: {**ours, "config": with_lora(config, LORA), "actions": writes(name)} for name, config in LAYOUTS.items()
    }
    for name, (kind, its) in IN_ORDER.items():
        config = with_lora(LAYOUTS["sp2"], its)
        split[f"{name} cut"] = {"model": models[kind], "config": config, "actions": writes(f"{name} cut")}
    found |= run_ranks(folder / "ranks2", 2, split | off_plan(2))
    both = {"placement": {"tensor_parallel": 2}, "train": {"use_distributed_optimizer": True}}
    four = {"tp2-dp2-shared": {**ours, "config": with_lora(both, LORA), "actions": writes("tp2-dp2-shared")}}
    found |= run_ranks(folder / "ranks4", 4, four | off_plan(4))
    again = {
        f"{name} again": {**lora, "actions": [["load", str(folder / name)], "steps_are_apart", ["update", 2]]}
        for name in ("one", "pp2", "tp2", "tp2-dp2-shared")
    }
    for name, (kind, its) in IN_ORDER.items():
        actions = [["load", str(folder / f"{name} cut")], ["log_probs", 0]]
        again[f"{name} again"] = {"model": models[kind], "config": with_lora({}, its), "actions": actions}
    for name in WRITTEN:
        again[f"{name} merged"] = {"model": str(folder / f"{name}-hf"), "actions": [["log_probs", 0]]}
    found |= run_ranks(folder / "again", 1, again, fresh=True)
    return found


def stored(folder: Path, name: str, kind: str = KIND, lora: dict[str, Any] = LORA) -> StoredAdapters:
    shape = modelcfg.from_hf(json.loads((folder / kind / "config.json").read_text()))
    return StoredAdapters(folder / name, shape, LoraConfig.model_validate(lora), folder / kind)


def test_the_model_begins_as_its_base(outcomes: dict[str, list[Any]]) -> None:
    assert outcomes["begun"][0] == outcomes["base"][0]


def test_the_base_is_the_reference_and_stays_it(outcomes: dict[str, list[Any]]) -> None:
    second = outcomes["one"][1]
    assert second["logprobs_ref"] == outcomes["base"][0]
    assert second["metrics"]["train/kl_loss"] > 1e-5


@pytest.mark.usefixtures("outcomes")
def test_gradients_are_those_of_the_merged_weight(folder: Path) -> None:
    """At first B is zero: that of B is the weight's, times A^T and the scale; that of A is zero."""
    whole, found = load_file(folder / "base-gradients"), load_file(folder / "lora-gradients")
    adapters = {name: t for name, t in stored(folder, "whole", lora=WHOLE_RANK).adapters.items() if "lora_A" in name}
    of_whole = load_file(folder / "whole-gradients")
    assert len(found) == 2 * 7 * 2
    for name, lora_a in adapters.items():
        module = name.removesuffix(".lora_A.weight")
        weight = whole[module.removeprefix("base_model.model.") + ".weight"]
        assert not of_whole[name].any()
        gradient = of_whole[f"{module}.lora_B.weight"]
        torch.testing.assert_close(gradient, weight @ lora_a.T, rtol=1e-5, atol=1e-5 * float(weight.norm()))
        direction = torch.linalg.solve(lora_a.double(), gradient.double().T).T  # A of whole rank has an inverse
        cosine = torch.cosine_similarity(direction.flatten(), weight.double().flatten(), dim=0)
        assert cosine > 1 - 1e-6, name


@pytest.mark.parametrize("layout", [*LAYOUTS, "tp2-dp2-shared", "recompute"])
def test_every_layout_learns_alike(outcomes: dict[str, list[Any]], layout: str) -> None:
    assert len(outcomes[layout]) >= 2, outcomes[layout]
    check_same(outcomes[layout][:2], outcomes["one"][:2])


def test_a_state_that_streams_makes_the_same_bits(outcomes: dict[str, list[Any]]) -> None:
    assert outcomes["plan bf16-streamed"][1:] == outcomes["plan bf16"][1:]


def test_answers_are_learnt(outcomes: dict[str, list[Any]]) -> None:
    first, second = outcomes["sft"]
    assert second["metrics"]["train/loss"] < first["metrics"]["train/loss"] - 1e-3


def test_resumed_run_is_the_same_bit_for_bit(outcomes: dict[str, list[Any]]) -> None:
    assert len(outcomes["one again"]) == 3, outcomes["one again"]
    assert outcomes["one again"][1] is True
    assert outcomes["one again"][2] == outcomes["one"][-1]


@pytest.mark.parametrize("name", IN_ORDER)
def test_projections_in_another_order_are_cut_alike(outcomes: dict[str, list[Any]], folder: Path, name: str) -> None:
    """Updates, a checkpoint on one rank, and what is written of both: as on one rank, and as in PEFT's order."""
    kind, lora = IN_ORDER[name]
    check_same(outcomes[f"{name} cut"][:2], outcomes[name][:2])
    for ours, theirs in zip(outcomes[f"{name} again"][1], outcomes[name][2], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    found, wanted = (stored(folder, one, kind, lora) for one in (f"{name} cut", name))
    for adapter, values in wanted.adapters.items():
        torch.testing.assert_close(found.adapters[adapter], values, rtol=1e-3, atol=1e-4)
    whole = load_file(folder / f"{name}-hf" / "model.safetensors")
    assert all(torch.allclose(values, whole[tensor], atol=1e-6) for tensor, values in wanted.tensors())


@pytest.mark.parametrize("layout", ["pp2", "tp2", "tp2-dp2-shared"])
def test_a_checkpoint_of_another_layout_goes_on_alike(outcomes: dict[str, list[Any]], layout: str) -> None:
    assert len(outcomes[f"{layout} again"]) == 3, outcomes[f"{layout} again"]
    check_same(outcomes[f"{layout} again"][2:], outcomes["one"][-1:])


def test_all_parts_leave_and_come_back(outcomes: dict[str, list[Any]]) -> None:
    assert outcomes["one"][5] == [["base", "gradients", "moments", "parameters"], 0]


@pytest.mark.parametrize("name", PLANS)
def test_every_part_has_the_planned_bytes(outcomes: dict[str, list[Any]], name: str) -> None:
    assert len(outcomes[f"plan {name}"]) == 3, outcomes[f"plan {name}"]
    assert outcomes[f"plan {name}"][0] == {}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_merged_model_computes_what_the_adapters_do(outcomes: dict[str, list[Any]], name: str) -> None:
    for found, wanted in zip(outcomes[f"{name} merged"][0], outcomes[name][2], strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)


@pytest.mark.usefixtures("outcomes")
@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_sent_is_the_base_and_what_the_adapters_add(folder: Path, name: str) -> None:
    """And what a checkpoint is exported to is that, bit for bit."""
    kind, lora = ("qwen2", ATTENTION) if name == "biased" else (KIND, LORA)
    base, sent = load_file(folder / kind / "model.safetensors"), load_file(folder / f"{name}-hf" / "model.safetensors")
    model = stored(folder, name, kind, lora)
    exported = dict(model.tensors())
    assert exported.keys() == sent.keys()
    for key, tensor in sent.items():
        assert torch.equal(tensor, exported[key]), key
        a, b = (
            model.adapters.get(f"base_model.model.{key.removesuffix('weight')}{x}.weight") for x in ("lora_A", "lora_B")
        )
        wanted = base[key].double()
        if a is not None and b is not None:
            assert b.any(), key
            wanted = wanted + lora["alpha"] / lora["rank"] * (b.double() @ a.double())
        torch.testing.assert_close(tensor.double(), wanted, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("outcomes")
def test_a_model_out_of_a_checkpoint_is_the_merged_one(folder: Path) -> None:
    written, merged = (folder / name / "model.safetensors" for name in ("biased-beside", "biased-hf"))
    assert written.read_bytes() == merged.read_bytes()


@pytest.mark.usefixtures("outcomes")
def test_a_checkpoint_holds_adapters_and_nothing_of_the_base(folder: Path) -> None:
    model = stored(folder, "one")
    assert not [key for key in model._tensors if "adapters" not in key]
    numel = sum(tensor.numel() for tensor in model.adapters.values())
    held = sum(file.stat().st_size for file in (folder / "one").iterdir())
    assert 3 * 4 * numel < held < 3 * 4 * numel + 400_000  # weights and two moments; names and places


@pytest.mark.usefixtures("outcomes")
@pytest.mark.parametrize("name", ["one", "biased"])
def test_peft_makes_the_merged_model_of_the_exported_adapters(folder: Path, tmp_path: Path, name: str) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    kind, lora = ("qwen2", ATTENTION) if name == "biased" else (KIND, LORA)
    model = stored(folder, name, kind, lora)
    write_peft(tmp_path, model.adapters, LoraConfig.model_validate(lora), model.targets, str(folder / kind))
    shutil.copyfile(folder / kind / "config.json", folder / f"{name}-hf" / "config.json")
    base, merged_model = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        for path in (folder / kind, folder / f"{name}-hf")
    )
    adapted = peft.PeftModel.from_pretrained(base, tmp_path)
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        found, wanted = (one.eval()(tokens).logits for one in (adapted, merged_model))
        plain = AutoModelForCausalLM.from_pretrained(folder / kind, dtype=torch.float32)(tokens).logits
    assert not [key for key in peft.get_peft_model_state_dict(adapted) if key not in model.adapters]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert float((found - plain).abs().max()) > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merging_rounds_once(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    weight, a, b = (torch.randn(size, generator=generator).to(dtype) for size in ((48, 40), (6, 40), (48, 6)))
    wanted = (weight.double() + 0.5 * (b.double() @ a.double())).to(dtype)
    torch.testing.assert_close(merged(weight, a, b, 0.5), wanted, rtol=1e-6 if dtype == torch.float32 else 0, atol=2e-6)
