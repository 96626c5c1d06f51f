"""Refusals and notices; every value that a message proposes is tried, and so is the next one that should not do."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

import modelcfg
from core.config.schema import RunConfig
from core.config.sections.slurm import SlurmComponent
from core.planner import host_shortage, notices, problems, size_problems
from core.planner.changes import apply
from core.planner.memory import TIGHT, TRAINING, Device
from tests.support.plans import A100_40, CPU, GIB, H100, plan, run


def refused(config: RunConfig, device: Device = H100) -> list[str]:
    return [str(p) for p in problems(config, modelcfg.load(config.model.name or ""), plan(config, device))]


def noticed(config: RunConfig, device: Device = H100) -> list[str]:
    return [str(n) for n in notices(config, modelcfg.load(config.model.name or ""), plan(config, device))]


def proposals(message: str) -> list[dict[str, Any]]:
    """The settings that a message proposes."""
    remedy = message.partition(": set ")[2]
    pairs = [re.findall(r"([a-z_]+\.[a-z_]+): (\S+?)(?=,|$| )", option) for option in remedy.split(", or ")]
    return [{key: yaml.safe_load(value) for key, value in found} for found in pairs if found]


def test_a_run_that_fits_is_not_refused() -> None:
    assert refused(run()) == []
    assert plan(run()).fits()


NO_FIT: dict[str, tuple[dict[str, Any], Device]] = {
    "no recompute": ({"train": {"recompute": "none"}}, H100),
    "too many tokens": ({"train": {"max_tokens_per_micro_batch": 65536}}, H100),
    "8b on eight": ({"model": {"name": "qwen3-8b"}, "placement": {"trainers_per_node": 8}}, H100),
    "experts on eight": (
        {
            "model": {"name": "qwen3-30b-a3b"},
            "placement": {"trainers_per_node": 8, "engine_tensor_parallel": 2},
            "train": {"use_distributed_optimizer": True},
        },
        H100,
    ),
    "8b on one": ({"model": {"name": "qwen3-8b"}}, H100),
    "4b without offload": ({"placement": {"offload": "off"}}, H100),
    "1.7b on a small card": ({"model": {"name": "qwen3-1.7b"}, "train": {"recompute": "none"}}, A100_40),
}


@pytest.mark.parametrize("case", NO_FIT)
def test_each_proposal_of_a_refusal_fits(case: str) -> None:
    sections, device = NO_FIT[case]
    config = run(**sections)
    (message,) = refused(config, device)
    assert f"wanted at most the {(device.total_bytes or 0) / GIB:.2f} GiB of a GPU: set " in message
    assert message.startswith("train.max_tokens_per_micro_batch: found ")
    assert "GiB in phase update (trainer: " in message
    options = proposals(message)
    assert options
    for option in options:
        changed = apply(config, option)
        assert size_problems(changed, modelcfg.load(config.model.name or "")) == []
        assert plan(changed, device).fits(TRAINING), option


def test_the_proposed_number_of_tokens_is_the_largest() -> None:
    config = run(train={"max_tokens_per_micro_batch": 65536})
    (option,) = (o for o in proposals(refused(config)[0]) if list(o) == ["train.max_tokens_per_micro_batch"])
    tokens = option["train.max_tokens_per_micro_batch"]
    assert tokens % 256 == 0
    assert not plan(apply(config, {"train.max_tokens_per_micro_batch": tokens + 256})).fits(TRAINING, TIGHT)


def test_the_proposed_number_of_layers_is_the_smallest() -> None:
    config = run(train={"recompute": "none", "max_tokens_per_micro_batch": 4096})
    (option,) = (o for o in proposals(refused(config)[0]) if "train.recompute_layers" in o)
    fewer = {**option, "train.recompute_layers": option["train.recompute_layers"] - 1}
    assert not plan(apply(config, fewer)).fits(TRAINING, TIGHT)


def test_experts_are_shared_out_where_layers_would_be_split() -> None:
    (message,) = refused(run(**NO_FIT["experts on eight"][0]))
    assert "placement.expert_parallel: " in message
    assert "tensor_parallel: " not in message.partition(": set ")[2].replace("engine_tensor_parallel", "")


def test_the_distributed_optimiser_is_proposed_before_other_gpus() -> None:
    (message,) = refused(run(**NO_FIT["8b on eight"][0]))
    assert proposals(message)[0]["train.use_distributed_optimizer"] is True


def test_a_model_that_no_setting_fits_on_one_gpu_is_told_what_was_tried_and_the_smallest_machine() -> None:
    config, small = run("llama-3.1-8b"), Device("cuda", 24 * GIB)
    message = refused(config, small)[-1]
    assert message.endswith(
        ", for 4 GPUs, the smallest machine that would do; on 1 GPU no layout fits (tried: all layers recomputed, "
        "rows down to 2048 tokens, an optimizer state that streams)"
    )
    changed = apply(config, proposals(message.replace(", for 4 GPUs", ""))[0])
    assert changed.placement.trainers_per_node == 4
    assert refused(changed, small) == []


def test_a_model_that_is_too_large_for_any_number_of_gpus_wants_larger_ones() -> None:
    (message, _) = refused(run("llama-3.1-405b", placement={"trainers_per_node": 8}), Device("cuda", 24 * GIB))
    found = (
        " and placement.engine_tensor_parallel: 16, for 8 nodes × 8 GPUs of 79.1 GiB, the smallest machine that would "
    )
    assert f"{found}do; on 8 GPUs no layout " in message
    assert "(tried: tensor_parallel 1, 2, 4, 8, pipeline_parallel 1, 2, 4, 8, all layers recomputed, " in message


def test_no_more_gpus_are_proposed_than_a_node_has() -> None:
    config, two = run("llama-3.1-8b"), Device("cuda", 24 * GIB, per_node=2)
    message = refused(config, two)[-1]
    assert ", for 2 nodes × 2 GPUs, the smallest machine" in message
    assert refused(apply(config, proposals(message.replace(", for 2 nodes", ""))[0]), two) == []


def test_the_engines_share_too_large_and_too_small() -> None:
    (large,) = refused(run(placement={"engine_memory_fraction": 0.97}))
    assert large.startswith("placement.engine_memory_fraction: found ")
    assert " in phase rollout (" in large
    assert f"; wanted at most the {(H100.total_bytes or 0) / GIB:.2f} GiB of a GPU: set " in large
    (option,) = proposals(large)
    fraction = option["placement.engine_memory_fraction"]
    assert refused(apply(run(), option)) == []
    assert not plan(apply(run(), {"placement.engine_memory_fraction": fraction + 0.01})).fits(share=TIGHT)
    (small,) = refused(run(placement={"engine_memory_fraction": 0.05}))
    assert (
        "found a KV cache of 0 tokens beside the engine's weights; wanted room for one sample of 2048 tokens" in small
    )
    assert small.startswith("placement.engine_memory_fraction: found ")
    assert refused(apply(run(), proposals(small)[0])) == []
    (limited,) = refused(run(placement={"engine_memory_fraction": 0.05, "engine_max_total_tokens": 2048}))
    assert limited.partition(": set ")[0] == small.partition(": set ")[0], "the limit is no hindrance"
    assert refused(apply(run(), proposals(limited)[0])) == []


def test_a_limit_of_tokens_below_one_sample() -> None:
    (message,) = refused(run(placement={"engine_max_total_tokens": 1000}))
    assert message.startswith("placement.engine_max_total_tokens: found a KV cache of 1000 tokens")
    assert message.endswith("raise it to 2048 or more")


def test_requests_beyond_the_cache_are_noticed() -> None:
    config = run(placement={"engine_memory_fraction": 0.3, "engine_max_running_requests": 128})
    assert refused(config) == []
    (message,) = [text for text in noticed(config) if "engine_max_running_requests" in text]
    room = plan(config).cache.samples(2048)
    assert f"it has room for {room}" in message
    assert f"lower it to {room}" in message
    (option,) = proposals(message)[:1]
    assert plan(apply(config, option)).cache.samples(2048) >= 128


def test_a_tight_plan_is_noticed_with_a_way_out() -> None:
    config = run(train={"max_tokens_per_micro_batch": 8192})
    needed = plan(config).needed_bytes()
    tight = Device("cuda", int(needed / 0.97))
    (message,) = [text for text in noticed(config, tight) if "95%" in text]
    for option in proposals(message):
        assert plan(apply(config, option), tight).fits(TRAINING, TIGHT)
    assert refused(config, tight) == []


def test_host_memory_that_slurm_is_asked_for() -> None:
    def asking(mem: str | None, *others: dict[str, str]) -> RunConfig:
        return run(slurm={"components": [{"role": "trainers", "mem": mem}, *others]}, placement={"offload": "on"})

    (message,) = refused(asking("32G"))
    assert message == (
        "slurm.components.0.mem: found 32G; wanted room for the 44.95 GiB that 1 trainer ranks park: ask for more than "
        "45G, for the processes need some as well"
    )
    assert refused(asking("96G")) == []
    assert refused(asking("100000")) == []  # MiB, as for Slurm
    assert refused(asking(None)) == []
    assert refused(asking("96G", {"role": "rewards", "mem": "1G"})) == [], "only trainers park"


def test_host_memory_that_is_just_enough() -> None:
    config = run(placement={"offload": "on"})
    kib, rest = divmod(plan(config).host_bytes, 1024)
    assert rest == 0
    for mem, count in ((f"{kib}K", 0), (f"{kib - 1}K", 1)):
        assert len(refused(apply(config, {"slurm.components": [SlurmComponent(role="trainers", mem=mem)]}))) == count


def test_a_cpu_plan_only_notices() -> None:
    config = run("qwen3-4b", model={"dtype": "float32"})
    assert refused(config, CPU) == []
    assert any("of this node" in text for text in noticed(config, CPU))


def test_a_host_without_room_for_what_is_parked() -> None:
    config = run(placement={"offload": "on"})
    found = plan(config)
    assert host_shortage(config, found, found.host_bytes, "this machine") is None
    wrong = host_shortage(config, found, found.host_bytes - 1, "the control group /job_7")
    assert str(wrong).startswith(
        "found 44.95 GiB of host memory, by the control group /job_7; wanted room for the 44.95"
    )
    assert host_shortage(config, plan(config, CPU), 1, "this machine") is None, "on a CPU nothing is parked"
