"""Runs without trainers, and evaluations: what they imply, what is refused, and what they need of a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.units import GIB
from core.checks import check_run_file
from core.config import RunFileError
from core.planner import Device, plan_memory
from core.planner.memory import TRAINING
from modelcfg import load
from tests.support.good_run import write_run

NONE = "placement.trainers=none"
CASES = {
    "in turns": (
        [NONE, "placement.schedule=in_turns"],
        "placement.schedule: found in_turns; wanted a schedule without updates, which says trains = False, as "
        "placement.trainers is none: remove it: where trainers is none, it is then evaluate",
    ),
    "no engines": (
        [NONE, "placement.engines=none"],
        "placement.engines: found none; wanted engines, as placement.trainers is none: nobody else has the model",
    ),
    "saved": (
        [NONE, "checkpoint.save_hf=end"],
        "checkpoint.save_hf: found end; wanted off, as placement.trainers is none: the model stays as it is",
    ),
    "trained": (
        ["placement.schedule=evaluate"],
        "placement.schedule: found evaluate with placement.trainers megatron, which would hold a model for nothing; "
        "wanted placement.trainers: none with it: set placement.trainers to none",
    ),
    "a majority without answers": (
        ["eval.majority=true", "eval.temperature=1", "eval.n_samples_per_prompt=4"],
        "eval.majority: found true with reward.type exact; wanted a type that looks for an answer: math, deepscaler, "
        "dapo, last_number, choice: remove it, or choose such a reward.type",
    ),
    "a majority of one": (
        ["eval.sets.held_out.majority=true", "reward.type=math"],
        "eval.sets.held_out.majority: found true with 1 sample per prompt; wanted several samples, which vote: raise "
        "n_samples_per_prompt, or remove it",
    ),
    "nothing to evaluate": (
        [NONE, "eval.sets=null"],
        "eval.sets: found no eval.sets, with placement.trainers none; wanted a set to evaluate",
    ),
}


@pytest.mark.parametrize(("overrides", "message"), CASES.values(), ids=CASES)
def test_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(RunFileError) as error:
        check_run_file(write_run(tmp_path), overrides)
    assert message in str(error.value)


def test_what_only_training_needs_is_not_asked_for(tmp_path: Path) -> None:
    """The schedule and what is saved are implied; batch sizes need not fit."""
    config = check_run_file(write_run(tmp_path), [NONE, "train.global_batch_size=7"])
    assert (config.placement.schedule, config.checkpoint.save_hf) == ("evaluate", "off")


def test_a_gpu_holds_the_engine_alone(tmp_path: Path) -> None:
    gpu = ["placement.device=cuda", "model.dtype=bfloat16"]
    run_file, device, shape = write_run(tmp_path), Device("cuda", 80 * GIB), load("qwen3-4b")
    trained = plan_memory(check_run_file(run_file, gpu), shape, device)
    plan = plan_memory(check_run_file(run_file, [*gpu, NONE]), shape, device)
    assert not plan.in_turns
    assert plan.graphs is None
    assert plan.needed_bytes(TRAINING) < 0.8 * trained.needed_bytes(TRAINING)
    parts = {part for phase in plan.phases.values() for part in phase["trainer"]}
    assert parts == {"process"}
