"""Faults of runs whose engines and trainer ranks share real GPUs: memory is free afterwards, and the run goes on."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.waiting import wait_until
from tests.support.faulty_runs import member_pid, wait_for_phase
from tests.support.tiny_models import GPU_SIZES, tiny_model
from tests.support.tiny_runs import descendants, ebbtide, events, start_ebbtide, survivors, write_run

pytestmark = [pytest.mark.gpu, pytest.mark.run]

FREED_S = 20
SLACK_MIB = 200
# a rank and an engine on each of two GPUs, and what is cut over both
ON_EACH = {"trainers_per_node": 2, "engines_per_node": 2}
OVER_BOTH = {"trainers_per_node": 2, "tensor_parallel": 2, "engine_tensor_parallel": 2}
layouts = pytest.mark.parametrize("placement", [{}, ON_EACH, OVER_BOTH], ids=["one-gpu", "on-each-of-two", "over-both"])
# 200 MiB for the trainer of an H100: enough for the model, not for the activations of 16 samples of 250 tokens
LITTLE_MEMORY = """
import sys

if "launchers.rank.trainer" in sys.orig_argv:
    import torch

    torch.cuda.set_per_process_memory_fraction(200 * 2**20 / torch.cuda.get_device_properties(0).total_memory)
"""


def used_mib() -> int:
    """Memory in use on the GPUs that we may use."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        query += ["-i", visible]
    return sum(map(int, subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()))


@pytest.fixture
def placement() -> dict[str, Any]:
    """The layout of one GPU, where a test has no other."""
    return {}


@pytest.fixture
def memory_before(placement: dict[str, Any]) -> Iterator[int]:
    """Also skips where there are too few GPUs, and checks in the end that all memory came back."""
    import torch

    if torch.cuda.device_count() < (wanted := placement.get("trainers_per_node", 1)):
        pytest.skip(f"fewer than {wanted} GPUs here")
    before = used_mib()
    yield before
    assert wait_until(lambda: used_mib() <= before + SLACK_MIB, FREED_S), f"{used_mib()} MiB in use, {before} before"


def write_gpu_run(folder: Path, placement: dict[str, Any], offload: str = "on", **rollout: Any) -> Path:
    """A tiny model of a size that CUDA kernels take; one row of all tokens."""
    file = write_run(
        folder,
        kind="qwen3-tied",
        rollout={"num_rollout": 6, "max_response_tokens": 500, **rollout},
        train={
            **{"global_batch_size": 16, "num_steps_per_rollout": 1, "max_tokens_per_micro_batch": 40000},
            "use_distributed_optimizer": placement == ON_EACH,
        },
        placement={"engine_memory_fraction": 0.2, "start_timeout_s": 400, "offload": offload, **placement},
        logging={"tensorboard": False},
    )
    tiny_model("qwen3-tied", folder / "model", max_position_embeddings=4096, **GPU_SIZES)
    return file


def finish(run_dir: Path) -> None:
    """Resume the run to its end; no step is missing."""
    done = ebbtide("resume", str(run_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted({event["step"] for event in events(run_dir, "step")}) == list(range(6))


@layouts
@pytest.mark.parametrize("phase", ["rollout step=1", "update step=1"])
def test_an_engine_killed_while_it_holds_memory_or_has_given_it_back(
    phase: str, placement: dict[str, Any], memory_before: int, tmp_path: Path
) -> None:
    run_dir, file = tmp_path / "out", write_gpu_run(tmp_path, placement)
    command = start_ebbtide("run", str(file), "--run-dir", str(run_dir), log=tmp_path / "log")
    wait_for_phase(run_dir, phase, command)
    for process in reversed(descendants([member_pid(run_dir, "engine=node0-engine0")])):  # children die with parents
        process.kill()
    assert command.wait(400) == 0, (tmp_path / "log").read_text()
    assert "restarting" in (run_dir / "attempts/1/agent-0.log").read_text()
    assert sorted(event["step"] for event in events(run_dir, "step")) == list(range(6))


@layouts
def test_a_trainer_killed_while_it_is_parked(placement: dict[str, Any], memory_before: int, tmp_path: Path) -> None:
    run_dir, file = tmp_path / "out", write_gpu_run(tmp_path, placement)
    command = start_ebbtide("run", str(file), "--run-dir", str(run_dir), log=tmp_path / "log")
    wait_for_phase(run_dir, "rollout step=2", command)
    family = descendants([command.pid])
    [p for p in family if "launchers.rank.trainer" in p.cmdline()][-1].kill()
    assert command.wait(60) == 1
    assert survivors(family) == []
    record = json.loads((run_dir / "attempts/1/failure.json").read_text())
    assert (record["role"], record["cause"]) == ("trainer", "killed by signal 9 (SIGKILL)")
    assert wait_until(lambda: used_mib() <= memory_before + SLACK_MIB, FREED_S)
    finish(run_dir)


@pytest.mark.parametrize("offload", ["on", "off"])
def test_memory_that_runs_out_in_an_update(
    offload: str, placement: dict[str, Any], memory_before: int, tmp_path: Path
) -> None:
    """The error says so, nothing stays behind, and with enough of it the run goes on."""
    run_dir, site = tmp_path / "out", tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(LITTLE_MEMORY)
    run_file = write_gpu_run(tmp_path, placement, offload, max_response_tokens=2000)
    command = start_ebbtide("run", str(run_file), "--run-dir", str(run_dir), log=tmp_path / "log", python_path=site)
    assert command.wait(400) == 1
    text = (run_dir / "attempts/1/trainer-0.log").read_text()
    assert "out of GPU memory in phase update of step " in text  # the first, or one whose responses are longer
    assert "Lower train.max_tokens_per_micro_batch" in (tmp_path / "log").read_text()
    assert wait_until(lambda: used_mib() <= memory_before + SLACK_MIB, FREED_S)
    finish(run_dir)
