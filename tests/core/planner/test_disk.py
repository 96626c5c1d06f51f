"""Planned bytes on disk against files that are really written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import modelcfg
from core.planner import plan_disk
from core.trajectory import Ragged, StepRecord, write_step
from tests.support.plans import run


def test_a_checkpoint_holds_parameters_masters_and_moments_once() -> None:
    shape = modelcfg.load("qwen3-4b")
    parameters = modelcfg.num_parameters(shape)
    assert plan_disk(run(), shape, "cuda").checkpoint == 14 * parameters
    assert plan_disk(run(model={"dtype": "float32"}), shape, "cpu").checkpoint == 12 * parameters
    assert plan_disk(run(checkpoint={"save_hf": "off"}), shape, "cuda").model == 0
    every = run(checkpoint={"save_hf": "every 3"}, rollout={"num_rollout": 9})  # after 3, 6 and 9
    assert plan_disk(every, shape, "cuda").model == 3 * 2 * parameters
    with_critic = plan_disk(run(algorithm={"advantage_estimator": "gae"}), shape, "cuda")
    assert with_critic.checkpoint == 14 * (2 * parameters + shape.hidden_size)  # tied: the embedding is in both
    disk = plan_disk(run(checkpoint={"keep": 3}), shape, "cuda")
    assert (disk.checkpoints_kept, disk.model) == (3, 2 * parameters)


@pytest.mark.parametrize(("device", "each"), [("cuda", 14), ("cpu", 12)])
def test_the_type_of_the_parameters_may_be_the_devices(device: str, each: int) -> None:
    shape = modelcfg.load("qwen3-4b")
    found = plan_disk(run(model={"dtype": "auto"}), shape, device)
    assert found.checkpoint == each * modelcfg.num_parameters(shape)


def test_a_reference_that_moves_is_in_the_checkpoint() -> None:
    shape, kl = modelcfg.load("qwen3-4b"), {"kl_loss_coef": 0.1}
    stays, moves = (
        plan_disk(run(algorithm={**kl, "ref_update_interval": interval}), shape, "cuda").checkpoint
        for interval in (None, 5)
    )
    assert moves - stays == 2 * modelcfg.num_parameters(shape)


@pytest.mark.parametrize(("kl", "logprobs"), [(0.0, 2), (0.1, 3)], ids=["engine, trainer", "and the reference"])
def test_bytes_of_a_step(kl: float, logprobs: int) -> None:
    """16 groups of 8: ids and 5 bytes of text for 512 + 1536 tokens; of responses a mask, and log-probs in fp32."""
    found = plan_disk(run(algorithm={"kl_loss_coef": kl}), modelcfg.load("qwen3-4b"), "cuda")
    assert found.step == 16 * 8 * (384 + 512 * (4 + 5) + 1536 * (4 + 5 + 1 + 4 * logprobs))


def test_a_step_file_of_the_longest_samples_is_below_the_plan(tmp_path: Path) -> None:
    """Random tokens and log-probs hardly compress: half of the plan is there."""
    config = run()
    samples = config.rollout.rollout_batch_size * config.rollout.n_samples_per_prompt
    prompt, response = config.data.max_prompt_tokens, config.rollout.max_response_tokens
    rng = np.random.default_rng(0)

    def ragged(length: int, dtype: str) -> Ragged:
        values = rng.integers(0, 150_000, samples * length).astype(dtype) if dtype == "int32" else None
        values = rng.normal(size=samples * length).astype(dtype) if values is None else values
        return Ragged(values, np.arange(samples + 1, dtype="int64") * length)

    def texts(length: int) -> tuple[str, ...]:
        return tuple(rng.bytes(4 * length // 2).hex() for _ in range(samples))

    numbers = np.arange(samples)
    record = StepRecord(
        **{"step": 0, "run": "r", "model": "m", "dtype": "bfloat16"},
        prompt_tokens=ragged(prompt, "int32"),
        response_tokens=ragged(response, "int32"),
        loss_mask=Ragged(np.ones(samples * response, "uint8"), ragged(response, "int32").offsets),
        logprobs_engine=ragged(response, "float32"),
        logprobs_old=ragged(response, "float32"),
        reward=numbers.astype("float64"),
        advantage=numbers.astype("float32"),
        **dict.fromkeys(("group", "index", "row"), numbers),
        **dict.fromkeys(("status", "weight_version", "engine", "failure", "label"), ("a",) * samples),
        prompt_text=texts(prompt),
        response_text=texts(response),
    )
    path = tmp_path / "steps" / "step_000000.h5"
    write_step(path, record)
    planned = plan_disk(config, modelcfg.load("qwen3-4b"), "cuda").step
    assert 0.5 * planned < path.stat().st_size < planned
