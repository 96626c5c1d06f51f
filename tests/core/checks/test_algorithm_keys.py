"""Keys of `algorithm` that nothing would read, and the page that lists what reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from core.checks.function import definition
from core.checks.needs import may_differ_by_token, min_group_size
from core.checks.signature import Signature
from core.config.sections.algorithm import AlgorithmConfig
from core.config.sections.critic import CriticConfig
from core.doors import ADVANTAGE, LOSS
from core.plugins import Door
from tests.support.door_files import said_of

PAGE = Path(__file__).parents[3] / "docs" / "algorithms.md"
SHARED = {"kl_loss_coef", "kl_loss_type", "kl_unbiased", "entropy_coef"}  # of every loss: told below the table
TWO_STEPS = ("train.num_steps_per_rollout=2", "train.global_batch_size=4")
CASES = {
    "no clip": (
        ["algorithm.loss=policy_gradient", "algorithm.eps_clip=0.1"],
        "algorithm.eps_clip: found 0.1, which loss policy_gradient does not read; wanted a key of loss "
        "policy_gradient; this one is for clipped, gspo, cispo, distillation: remove it, or choose another loss",
    ),
    "no dual clip": (
        ["algorithm.loss=gspo", "algorithm.eps_clip_c=3"],
        "algorithm.eps_clip_c: found 3.0, which loss gspo does not read; wanted a key of loss gspo; this one is for "
        "clipped, distillation: remove it, or choose another loss",
    ),
    "no standard deviation": (
        ["algorithm.advantage_estimator=rloo", "algorithm.grpo_std_normalization=false"],
        "algorithm.grpo_std_normalization: found false, which advantage_estimator rloo does not read; wanted a key of "
        "advantage_estimator rloo; this one is for grpo: remove it, or choose another advantage_estimator",
    ),
    "a bound of nothing": (
        ["algorithm.importance_high=3"],
        "algorithm.importance_high: found 3.0 with importance none; wanted a correction that the bound is for: set "
        "importance, e.g. tis, or remove the bound",
    ),
    "bounds beside 1": (
        ["algorithm.importance=icepop", "algorithm.importance_low=1.5"],
        "algorithm.importance_low: found 1.5; wanted bounds around 1, the weight of a token on which engine and "
        "trainer agree: correct it",
    ),
    "a weight for each token of a response's ratio": (
        ["algorithm.loss=gspo", "algorithm.importance=tis"],
        "algorithm.importance: found tis, a weight for each token, with loss gspo; wanted a weight for each response, "
        "as gspo's ratio is: use sequence or mis, or another loss",
    ),
    "a weight of what is not all": (
        ["algorithm.loss=distillation", "model.reference_path=model", "algorithm.importance=tis"],
        "algorithm.importance: found tis with loss distillation; wanted no weight of advantages, which are not all "
        "that this loss learns from: remove it",
    ),
    "a weight of what is the ratio": (
        ["algorithm.old_logprobs=engine", "algorithm.importance=tis"],
        "algorithm.importance: found tis with old_logprobs engine; wanted old log-probs of the trainer, for the ratio "
        "of the two is the weight: remove one of the two",
    ),
    "a KL beside the teacher's": (
        ["algorithm.loss=distillation", "algorithm.kl_loss_coef=0.1"],
        "algorithm.kl_loss_coef: found 0.1, which loss distillation does not read; wanted a key of loss distillation; "
        "this one is for clipped, gspo, cispo, sapo, policy_gradient: remove it, or choose another loss",
    ),
    "a KL in both places": (
        ["algorithm.advantage_estimator=reinforce_plus_plus", "algorithm.kl_coef=0.1", "algorithm.kl_loss_coef=0.2"],
        "algorithm.kl_coef: found 0.1 with kl_loss_coef 0.2: the reference is in the rewards and in the loss; wanted "
        "the KL in one place: remove one of the two",
    ),
    "a KL in the rewards beside a teacher": (
        ["algorithm.advantage_estimator=reinforce_plus_plus", "algorithm.kl_coef=0.1", "algorithm.loss=distillation"],
        "algorithm.kl_coef: found 0.1 with loss distillation: the reference is in the rewards and in the loss; wanted "
        "the KL in one place: remove one of the two",
    ),
    "a KL in rewards that are compared": (
        ["algorithm.kl_coef=0.1"],
        "algorithm.kl_coef: found 0.1, which advantage_estimator grpo does not read; wanted a key of "
        "advantage_estimator grpo; this one is for reinforce_plus_plus, gae: remove it, or choose another "
        "advantage_estimator",
    ),
    "a KL that nobody takes": (
        ["algorithm.advantage_estimator=mine.py:f", "algorithm.kl_coef=0.1"],
        "algorithm.kl_coef: found 0.1, and no parameter kl of DIR/mine.py:f; wanted an advantage that takes kl: add "
        "the parameter, or set kl_loss_coef in its place",
    ),
    "a KL in the rewards": (["algorithm.advantage_estimator=reinforce_plus_plus", "algorithm.kl_coef=0.1"], ""),
    "no reference that moves": (
        ["algorithm.ref_update_interval=2"],
        "algorithm.ref_update_interval: found 2 and no reference; wanted a KL to a reference, in the loss or the "
        "rewards: set kl_loss_coef or kl_coef, or remove it",
    ),
    "a teacher that moves": (
        ["algorithm.loss=distillation", "model.reference_path=model", "algorithm.ref_update_interval=2"],
        "algorithm.ref_update_interval: found 2 with loss distillation, whose reference is the teacher; wanted a "
        "teacher that stays: remove it",
    ),
    "a base that moves": (
        ["algorithm.kl_loss_coef=0.1", "algorithm.ref_update_interval=2", "train.lora={rank: 4}"],
        "algorithm.ref_update_interval: found 2 with train.lora, whose reference is the model without adapters; wanted "
        "a reference that stays: remove it, or train.lora",
    ),
    "a teacher": (["algorithm.loss=distillation", "algorithm.loss_options={advantage_weight: 0.5}"], ""),
    "no later pass": (
        ["model.path=experts", "algorithm.routing_replay=trainer"],
        "algorithm.routing_replay: found trainer with num_steps_per_rollout 1; wanted several optimiser steps, in the "
        "later ones of which experts are replayed: set it to engine, remove it, or raise train.num_steps_per_rollout",
    ),
    "no experts": (
        [*TWO_STEPS, "algorithm.routing_replay=trainer"],
        "algorithm.routing_replay: found trainer for model, which has no experts; wanted none, or a model with "
        "experts: remove it",
    ),
    "parts of rows": (
        [
            *("model.path=experts", *TWO_STEPS, "algorithm.routing_replay=trainer"),
            *("placement.trainers_per_node=2", "placement.context_parallel=2"),
        ],
        "placement.context_parallel: found 2 with routing_replay trainer; wanted 1, as only ranks that have whole rows "
        "replay experts: set context_parallel to 1, or remove routing_replay",
    ),
    "own tokens of ranks": (
        [
            *("model.path=experts", *TWO_STEPS, "algorithm.routing_replay=trainer", "placement.trainers_per_node=2"),
            *("placement.tensor_parallel=2", "placement.expert_parallel=2", "placement.sequence_parallel=true"),
        ],
        "placement.tensor_parallel: found 2 with routing_replay trainer; wanted 1, as only ranks that have whole rows "
        "replay experts: set tensor_parallel to 1, or remove routing_replay",
    ),
    "experts that are replayed": (["model.path=experts", *TWO_STEPS, "algorithm.routing_replay=trainer"], ""),
    "the engine's": (["model.path=experts", "algorithm.routing_replay=engine"], ""),
    "the engine's, of which there are none": (
        ["algorithm.routing_replay=engine"],
        "algorithm.routing_replay: found engine for model, which has no experts; wanted none, or a model with "
        "experts: remove it",
    ),
    "weights": (["algorithm.importance=mis", "algorithm.importance_low=0.5", "algorithm.opsm_delta=0.1"], ""),
    "read by the loss": (["algorithm.loss=cispo", "algorithm.eps_clip=1", "algorithm.kl_loss_coef=0.1"], ""),
    "no lower bound": (["algorithm.loss=cispo", "algorithm.eps_clip=1", "algorithm.eps_clip_high=0.28"], ""),
    "a loss of one's own": (["algorithm.loss=mine.py:f", "algorithm.eps_clip=0.1"], ""),
    "one sample": (
        ["algorithm.advantage_estimator=rloo", "rollout.n_samples_per_prompt=1", "train.global_batch_size=2"],
        "rollout.n_samples_per_prompt: found 1, too few for an advantage over the group; wanted at least 2 samples per "
        "prompt for advantage_estimator rloo: set n_samples_per_prompt to 2 or more",
    ),
    "PPO": (["algorithm.advantage_estimator=gae", "critic.lr=1e-5", "critic.num_critic_only_steps=3"], ""),
    "a critic for nobody": (
        ["critic.lr=1e-5"],
        "critic.lr: found 1e-05, and no critic, as grpo needs no values; wanted an advantage that needs values, gae: "
        "remove it, or set algorithm.advantage_estimator to gae",
    ),
    "a loss that reads no advantage": (
        ["algorithm.advantage_estimator=gae", "algorithm.loss=distillation", "model.reference_path=model"],
        "algorithm.loss: found distillation, which reads no advantage, with gae, which needs a critic for it; wanted "
        "a loss that reads advantages: choose another loss, clipped, or another advantage than gae",
    ),
    "a teacher that is the model itself": (
        ["algorithm.loss=distillation"],
        "algorithm.loss: found distillation, whose teacher is the model itself where model.reference_path is left out; "
        "wanted another model to learn from: set model.reference_path, or let rewards count beside it: loss_options: "
        "{advantage_weight: 1}",
    ),
    "the best of more than there are": (
        ["algorithm.advantage_estimator=pass_at_k", "algorithm.advantage_options={k: 8}"],
        "rollout.n_samples_per_prompt: found 4, too few for an advantage over the group; wanted at least 8 samples per "
        "prompt for advantage_estimator pass_at_k: set n_samples_per_prompt to 8 or more",
    ),
    "the best of all": (["algorithm.advantage_estimator=pass_at_k", "algorithm.advantage_options={k: 4}"], ""),
    "a filter of single samples": (
        [
            *("algorithm.advantage_estimator=gae", "rollout.n_samples_per_prompt=1", "train.global_batch_size=2"),
            *("rollout.filter=nonzero_std", "rollout.filter_rounds=2"),
        ],
        "rollout.filter: found nonzero_std with n_samples_per_prompt 1; wanted groups of several samples, whose "
        "rewards may differ: raise n_samples_per_prompt, or remove filter",
    ),
    "a loss that reads it by an option": (
        [
            *("algorithm.advantage_estimator=gae", "algorithm.loss=distillation", "model.reference_path=model"),
            "algorithm.loss_options={advantage_weight: 0.5}",
        ],
        "",
    ),
    "a critic's state that streams": (
        ["algorithm.advantage_estimator=gae", "train.optimizer_state=streamed"],
        "train.optimizer_state: found streamed with gae, which has a critic; wanted resident: set it to resident, and "
        "spread the state by train.use_distributed_optimizer or more GPUs",
    ),
    "a critic beside adapters": (
        ["algorithm.advantage_estimator=gae", "train.lora={rank: 4}"],
        "train.lora: found adapters of rank 4 with gae, which has a critic; wanted training of all weights: remove it, "
        "or choose another algorithm.advantage_estimator, grpo",
    ),
    "a policy that never learns": (
        ["algorithm.advantage_estimator=gae", "critic.num_critic_only_steps=4"],
        "critic.num_critic_only_steps: found 4; wanted fewer than the 4 steps of the run (rollout.num_rollout): lower "
        "it, or raise num_rollout",
    ),
    "a rate below its end": (
        ["algorithm.advantage_estimator=gae", "train.lr=1e-5", "train.min_lr=1e-6", "critic.lr=1e-7"],
        "critic.lr: found 1e-07, below train.min_lr 1e-06; wanted lr >= 1e-06: raise it, or lower train.min_lr",
    ),
    "a long warm-up": (
        ["algorithm.advantage_estimator=gae", "critic.lr_warmup_steps=5"],
        "critic.lr_warmup_steps: found 5 warm-up steps; wanted at most the 4 optimiser steps of the run: lower it to 4 "
        "or less",
    ),
    "a long warm-up of what the critic leaves": (
        [
            *("algorithm.advantage_estimator=gae", "critic.num_critic_only_steps=2", "train.lr_warmup_steps=3"),
            "critic.lr_warmup_steps=1",
        ],
        "train.lr_warmup_steps: found 3 warm-up steps; wanted at most the 2 optimiser steps of the run ((num_rollout "
        "4 - 2 of the critic alone) × num_steps_per_rollout 1): lower it to 2 or less, or raise num_rollout",
    ),
    "no k": (
        ["algorithm.advantage_estimator=pass_at_k"],
        "algorithm.advantage_options: found no k; wanted all that pass_at_k needs: add k",
    ),
}


@pytest.mark.parametrize(("settings", "said"), CASES.values(), ids=CASES)
def test_what_the_login_node_says(settings: list[str], said: str, tmp_path: Path) -> None:
    assert said_of(tmp_path, "def f(logprobs, entropy, inputs): ...", *settings) == said


OF_GROUPS = [name for name in ADVANTAGE.builtins if min_group_size(AlgorithmConfig(advantage_estimator=name)) > 1]


@pytest.mark.parametrize("name", OF_GROUPS)
def test_every_advantage_that_compares_refuses_a_single_sample(name: str, tmp_path: Path) -> None:
    options = "algorithm.advantage_options={k: 1}" if name == "pass_at_k" else "algorithm.advantage_options={}"
    one = ["rollout.n_samples_per_prompt=1", "train.global_batch_size=2"]
    told = said_of(tmp_path, "", f"algorithm.advantage_estimator={name}", options, *one)
    assert told.startswith("rollout.n_samples_per_prompt: found 1, too few for an advantage over the group; wanted at")
    assert told.endswith(f"for advantage_estimator {name}: set n_samples_per_prompt to 2 or more")


def test_advantages_that_compare_are_those_of_the_page() -> None:
    others = set(ADVANTAGE.builtins) - set(OF_GROUPS)
    assert others == {"reinforce_plus_plus", "gae", "none"}
    assert "All but `reinforce_plus_plus`, `gae` and `none` need two samples per prompt" in PAGE.read_text("utf-8")


@pytest.mark.parametrize(
    ("key", "value"), [("lr", 1e-5), ("lr_warmup_steps", 1), ("value_clip", 0.5), ("num_critic_only_steps", 1)]
)
def test_every_key_of_a_critic_is_refused_without_one(key: str, value: float, tmp_path: Path) -> None:
    assert set(CriticConfig.model_fields) == {"lr", "lr_warmup_steps", "value_clip", "num_critic_only_steps"}
    told = said_of(tmp_path, "", f"critic.{key}={value}")
    assert told.startswith(f"critic.{key}: found {value:g}" if value > 1e-4 else f"critic.{key}: found {value}")
    assert "and no critic, as grpo needs no values" in told


@pytest.mark.parametrize(("kind", "refused"), [("tis", True), ("icepop", True), ("sequence", False), ("mis", False)])
def test_gspo_takes_weights_of_responses_alone(kind: str, refused: bool, tmp_path: Path) -> None:
    told = said_of(tmp_path, "", "algorithm.loss=gspo", f"algorithm.importance={kind}")
    assert told.startswith(f"algorithm.importance: found {kind}, a weight for each token") == refused
    assert bool(told) == refused


def table(heading: str) -> dict[str, set[str]]:
    """Each name of a table, and what its row says of keys and options."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| .*? \| ([^|]*) \| ", section, re.M)
    return {name: set(re.findall(r"`(\w+)`", keys)) for name, keys in rows}


@pytest.mark.parametrize(("door", "heading"), [(ADVANTAGE, "Advantages"), (LOSS, "Losses")])
def test_the_page_lists_every_built_in_with_what_it_takes(door: Door, heading: str) -> None:
    listed = table(heading)
    for name, place in door.builtins.items():
        found = definition(place)
        assert found is not None
        assert listed[name] == set(Signature.of(found).names) - SHARED, name


@pytest.mark.parametrize("key", ["kl_loss_type", "loss_aggregation", "importance", "routing_replay"])
def test_the_page_lists_every_kind(key: str) -> None:
    rows = PAGE.read_text(encoding="utf-8").partition(f"\n| `{key}` | ")[2].partition("\n\n")[0]
    kinds = set(get_args(AlgorithmConfig.model_fields[key].annotation))
    assert set(re.findall(r"^\| `(\w+)` \| ", rows, re.M)) | {"none"} == kinds | {"none"}


def test_the_page_shows_a_refusal_as_it_is() -> None:
    assert f"line 17: {CASES['no clip'][1]}\n" in PAGE.read_text(encoding="utf-8")


def test_the_disk_is_planned_by_what_an_estimator_says() -> None:
    planned = {name: may_differ_by_token(AlgorithmConfig(advantage_estimator=name)) for name in ADVANTAGE.builtins}
    assert {name for name, differs in planned.items() if differs} == {
        "reinforce_plus_plus",
        "reinforce_plus_plus_baseline",
        "gae",
    }
