"""bench/long_context.py: its plan, what it finds wrong, and a trial on CPUs."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.long_context import faults, layouts, rates, settings
from bench.model_dir import known_shape
from common.units import GIB
from core.megatron.sizes.flops import update_flops
from core.planner import Device, plan_memory

ROOT = Path(__file__).parents[2]
OPTIONS = argparse.Namespace(device="cuda", shape="qwen3-4b", tokens=65536, prompt=1024, host_inputs=False)
GOOD: dict[str, Any] = {
    **{"gpus": 1, "grad_norm": [2.0, 3.0], "logprob": [-10.0, -9.9], "peak_gib": 98.0, "planned_gib": 100.0},
    **{"update_s": [8.0, 10.0, 99.0], "optimiser_s": [1.0, 2.0, 3.0]},
}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, []),
        ({"grad_norm": [2.0, 3.1]}, ["gradient norms"]),
        ({"logprob": [-10.0, -9.8]}, ["mean log-probs"]),
        ({"logprob": [-10.0, float("nan")]}, ["mean log-probs"]),
        ({"peak_gib": 94.0}, ["peak 94.00 GiB, planned 100.00"]),
        ({"peak_gib": 106.0}, ["peak 106.00 GiB, planned 100.00"]),
        ({"peak_gib": 0.0}, []),
    ],
    ids=["good", "norms", "log-probs", "no number", "below its plan", "above its plan", "CPUs"],
)
def test_what_is_not_as_wanted_is_told(change: dict[str, Any], wrong: list[str]) -> None:
    found = faults([GOOD, {**GOOD, "gpus": 2, **change}], "cuda")
    assert len(found) == len(wrong)
    assert all(line.startswith("2 GPUs") and what in line for line, what in zip(found, wrong, strict=True))


def test_rates_count_what_the_row_needs() -> None:
    found = rates({**GOOD, "gpus": 2}, OPTIONS, "NVIDIA H200")
    flops = update_flops(known_shape("qwen3-4b"), 65536, 64512, 65536**2 / 2)
    assert flops is not None
    assert found["tokens_per_s"] == 65536 / 10
    assert found["mfu"] == pytest.approx(flops / 10 / 2 / 989e12)
    assert found["mfu_of_passes"] == pytest.approx(flops / 8 / 2 / 989e12)
    assert "mfu" not in rates(GOOD, OPTIONS, "a CPU")


@pytest.mark.parametrize(("total_gib", "gpus", "streamed"), [(139.7, 1, False), (139.7, 2, False), (79.1, 1, True)])
def test_the_state_streams_where_it_does_not_fit(total_gib: float, gpus: int, streamed: bool) -> None:
    device = Device("cuda", round(total_gib * GIB))
    plan = plan_memory(settings(OPTIONS, gpus), known_shape("qwen3-4b"), device, in_turns=True)
    assert plan.streamed == streamed
    assert sum(plan.phases["update"]["trainer"].values()) <= total_gib * GIB


def test_what_is_measured_beside_the_layouts() -> None:
    flash, host = ["--flash"], ["--host-inputs"]
    options = argparse.Namespace(gpus=[1, 2], flash=True, host_inputs=True)
    assert layouts(options) == [(1, []), (1, host), (2, []), (2, flash), (2, host)]
    assert layouts(argparse.Namespace(gpus=[2], flash=False, host_inputs=False)) == [(2, [])]


def test_a_trial_on_two_cpus() -> None:
    command = [
        sys.executable,
        "bench/long_context.py",
        "--device",
        "cpu",
        "--host-inputs",
        "--gpus",
        "2",
        "--shape",
        "smollm2-135m:1",
    ]
    done = subprocess.run([*command, "--tokens", "128", "--prompt", "16"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = re.findall(r"log-prob (\S+), after a step (\S+)", done.stdout)
    assert first == second, "inputs on the host change nothing"
    assert first[0] != first[1]
