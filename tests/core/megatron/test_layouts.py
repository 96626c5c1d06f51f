"""The same updates under every parallel layout give the same losses, gradient norms and log-probs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.support.ranks import run_ranks
from tests.support.same_updates import check_same
from tests.support.tiny_models import KINDS, tiny_models

TP2 = {"placement": {"tensor_parallel": 2}}
SP2 = {"placement": {"tensor_parallel": 2, "sequence_parallel": True}}
PP2 = {"placement": {"pipeline_parallel": 2}}
TP2PP2 = {"placement": {"tensor_parallel": 2, "pipeline_parallel": 2}}
DISTRIBUTED = {"train": {"use_distributed_optimizer": True}}
RECOMPUTE = {"train": {"recompute": "full"}}
SMALL_ROWS = {"train": {"max_tokens_per_micro_batch": 40}}
UNSHARED = {"train": {"share_prompts": False}}

ALONE = {"plain": {}, "distopt": DISTRIBUTED, "recompute": RECOMPUTE, "small_rows": SMALL_ROWS, "unshared": UNSHARED}
TWO = {
    "tp2": TP2,
    "sp2": SP2,
    "pp2": PP2,
    "dp2": {},
    "dp2-distopt": DISTRIBUTED,
    "pp2-small_rows": {**PP2, **SMALL_ROWS},
    "sp2-recompute": {**SP2, **RECOMPUTE},
    "dp2-small_rows-unshared": {"train": {"max_tokens_per_micro_batch": 40, "share_prompts": False}},
}
FOUR = {"tp2-dp2": TP2, "tp2-dp2-distopt": {**TP2, **DISTRIBUTED}, "tp2-pp2": TP2PP2}
EVERYWHERE = ("llama", "qwen3")  # the other kinds differ in biases and tied weights only: fewer layouts
FEWER = ("tp2", "pp2", "sp2")
UPDATES = [["update", seed] for seed in (0, 1, 2)]
PLAIN_LOSS = {"algorithm": {"kl_loss_coef": 0.0, "entropy_coef": 0.0}}
LONELY = [["update", 0, 1]]  # one sample per optimiser step: some data-parallel ranks get none


def _cases(models: dict[str, str], layouts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{kind}/{layout}": {"model": models[kind], "config": config, "actions": UPDATES}
        for kind in KINDS
        for layout, config in layouts.items()
        if kind in EVERYWHERE or layout in FEWER or layout == "plain"
    }


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("layouts")
    models = tiny_models(KINDS, folder)
    result: dict[str, list[Any]] = {}
    llama, qwen3 = {"model": models["llama"]}, {"model": models["qwen3"]}
    extra: dict[int, dict[str, Any]] = {
        1: {
            "lonely": {**llama, "actions": LONELY},
            "one": {**llama, "actions": ["sums_over_one_rank"]},
            "reference": {**llama, "actions": [["log_probs", 1], ["update", 0], ["update", 1]]},
            "no reference": {**llama, "config": PLAIN_LOSS, "actions": [["update", 0]]},
            "nan": {**llama, "actions": [["update", 0], "spoil", ["update", 1]]},
        },
        2: {
            "lonely-dp2": {**llama, "actions": LONELY},
            "one-tp2": {**llama, "config": TP2, "actions": ["sums_over_one_rank"]},
            "marks": {**qwen3, "config": TP2, "actions": ["split_parameters", "parallel_output"]},
        },
        4: {"lonely-pp2-dp2": {**llama, "config": PP2, "actions": LONELY}},
    }
    for name, advantage in (("tiny", 1e-30), ("silent", 0.0)):
        actions = [["update_flat", seed, advantage] for seed in (0, 1)]
        extra[1][name] = {**llama, "config": PLAIN_LOSS, "actions": actions}
        extra[2][f"{name}-pp2"] = {**llama, "config": {**PP2, **PLAIN_LOSS}, "actions": actions}
    for size, layouts in ((1, ALONE), (2, TWO), (4, FOUR)):
        result |= run_ranks(folder / str(size), size, _cases(models, layouts) | extra[size])
    return result


ALL = [f"{k}/{x}" for k in KINDS for x in (*ALONE, *TWO, *FOUR) if x != "plain" and (k in EVERYWHERE or x in FEWER)]


@pytest.mark.parametrize("case", ALL)
def test_same_losses_and_gradients(outcomes: dict[str, list[Any]], case: str) -> None:
    kind = case.split("/")[0]
    assert len(outcomes[case]) == 3, outcomes[case]
    check_same(outcomes[case], outcomes[f"{kind}/plain"])


@pytest.mark.parametrize("case", ["one", "one-tp2"])
def test_nothing_is_summed_over_a_group_of_one_rank(outcomes: dict[str, list[Any]], case: str) -> None:
    assert outcomes[case] == [0]


@pytest.mark.parametrize("case", ["lonely-dp2", "lonely-pp2-dp2"])
def test_a_rank_without_samples_takes_part(outcomes: dict[str, list[Any]], case: str) -> None:
    check_same(outcomes[case], outcomes["lonely"])


@pytest.mark.parametrize("case", ["silent", "silent-pp2"])
def test_samples_without_advantage_are_not_computed_and_gradients_are_the_same(
    outcomes: dict[str, list[Any]], case: str
) -> None:
    for found, wanted in zip(outcomes[case], outcomes["tiny"], strict=True):
        for name in ("train/loss", "train/pg_loss", "train/pg_clipfrac", "train/grad_norm"):
            assert found["metrics"][name] == pytest.approx(wanted["metrics"][name], rel=1e-5, abs=1e-5), name
        assert found["metrics"]["perf/train_tokens"] < wanted["metrics"]["perf/train_tokens"]
        left_out = [math.isnan(values[0]) for values in found["logprobs"]]
        assert 0 < sum(left_out) < len(left_out)
        for ours, theirs, out in zip(found["logprobs"], wanted["logprobs"], left_out, strict=True):
            assert len(ours) == len(theirs)
            assert all(map(math.isnan, ours)) if out else ours == pytest.approx(theirs, abs=1e-5)


def test_next_to_no_advantage_is_computed_alike_over_stages(outcomes: dict[str, list[Any]]) -> None:
    check_same(outcomes["tiny-pp2"], outcomes["tiny"])


def test_gradient_that_is_not_finite_names_the_step(outcomes: dict[str, list[Any]]) -> None:
    (error,) = outcomes["nan"]
    assert error.startswith("NonFiniteGradient: gradient norm is nan at optimiser step 2: wanted a finite number")


def test_all_shards_are_marked_as_shards(outcomes: dict[str, list[Any]]) -> None:
    """Megatron leaves unmarked shards of ranks above 0 out of the gradient norm, without a word."""
    marked, parallel_output = outcomes["marks"]
    split = ("linear_qkv.weight", "linear_proj.weight", "linear_fc1.weight", "linear_fc2.weight")
    layers = [f"decoder.layers.{i}.{m}.{x}" for i in (0, 1) for x in split for m in (_parent(x),)]
    assert sorted(marked) == sorted([*layers, "embedding.word_embeddings.weight", "output_layer.weight"])
    assert parallel_output is True


def _parent(name: str) -> str:
    return "mlp" if name.startswith("linear_fc") else "self_attention"


def test_an_update_gives_the_log_probs_of_the_model_that_the_run_began_with(outcomes: dict[str, list[Any]]) -> None:
    """Of the second update: the policy has moved away from them. Without KL in the loss there are none."""
    at_first, _, second = outcomes["reference"]
    assert second["logprobs_ref"] == at_first
    assert second["logprobs"] != at_first
    assert outcomes["no reference"][0]["logprobs_ref"] is None
