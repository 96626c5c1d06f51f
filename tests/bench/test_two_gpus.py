"""bench/two_gpus.py on a CPU, where samples do not depend on the layout: the same losses.

Five of its layouts, because each takes a minute or two; the others have tests of their own parts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from bench.layout_runs import AS_RUN, LAYOUTS, run_file
from bench.two_gpus import NUM_STEPS, faults, jobs_of, measure
from core.checks import check_run_file

ON_A_CPU = [["alone", "tp2", "own_gpus-killed"], ["experts", "experts-ep2"]]
GOOD = {
    "layout": "tp2",
    "rc": 0,
    "losses": [0.0] * NUM_STEPS,
    "logprob_gap": [0.01],
    "replay_logprob_gap": 0.01,
    "replay_loss_gap": 0.0,
    "float32_logprob_gap": 1e-5,
    "warnings": [],
}


@pytest.mark.run
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("names", ON_A_CPU, ids=["dense", "experts"])
def test_layouts_learn_the_same_on_a_cpu(tmp_path: Path, names: list[str]) -> None:
    results = measure(names, tmp_path, "cpu", at_once=2)
    assert {result["layout"]: result["faults"] for result in results} == {name: [] for name in names}
    for result in results:
        assert result["losses"] == pytest.approx(results[0]["losses"], abs=1e-4), result["layout"]
        assert result["replay_grad_norm_ratio"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, 0),
        ({"rc": 1}, 1),
        ({"losses": [0.0]}, 1),
        ({"logprob_gap": [0.01, 0.3]}, 1),
        ({"replay_logprob_gap": 0.3, "replay_loss_gap": 0.1}, 2),
        ({"replay_logprob_gap": 0.3, "rounding_logprob_gap": 0.14}, 1),
        ({"replay_logprob_gap": 0.3, "rounding_logprob_gap": 0.16}, 0),
        ({"logprob_gap": [0.01, 0.3], "rounding_logprob_gap": 0.16}, 1),
        ({"float32_logprob_gap": 0.001}, 1),
        ({"float32_logprob_gap": None}, 1),
        ({"warnings": ["Rank 1 common state dict differs", "Rank 1 common state dict differs"]}, 1),
    ],
    ids=[
        "good",
        "failed",
        "too short",
        "engine apart",
        "replay apart",
        "more than rounding",
        "by rounding",
        "engine apart beside rounding",
        "exact apart",
        "no exact",
        "warned",
    ],
)
def test_what_is_not_as_wanted_is_told(change: dict[str, object], wrong: int) -> None:
    assert len(faults({**GOOD, **change}, "cuda")) == wrong


def test_an_engine_in_fp8_may_be_further_apart() -> None:
    apart = {**GOOD, "logprob_gap": [0.3]}
    assert len(faults({**apart, "layout": "fp8"}, "cuda")) == 0
    assert len(faults({**apart, "layout": "alone"}, "cuda")) == 1
    assert len(faults({**apart, "layout": "fp8", "logprob_gap": [0.6]}, "cuda")) == 1


@pytest.mark.parametrize("name", ["int8", "experts-int8"])
def test_an_engine_in_int8_is_tried_on_one_gpu_with_no_run_beside_it(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    assert (layout.gpus, layout.reference) == ("0", name)
    assert check_run_file(run_file(tmp_path, layout, "cuda")).placement.engine_weights == "int8"


def test_a_layout_without_a_replay_is_told() -> None:
    without = {key: value for key, value in GOOD.items() if not key.startswith("replay")}
    assert len(faults(without, "cuda")) == 1


def test_a_run_on_a_cpu_is_in_float32_already() -> None:
    exact = {**GOOD, "logprob_gap": [0.0], "replay_logprob_gap": 0.0}
    assert faults({key: value for key, value in exact.items() if key != "float32_logprob_gap"}, "cpu") == []


def test_the_run_file_with_drafts_passes_its_checks(tmp_path: Path) -> None:
    config = check_run_file(run_file(tmp_path, LAYOUTS["ngram"], "cuda"))
    assert config.placement.engine_options["speculative_algorithm"] == "NGRAM"


def test_layouts_that_train_alike_on_samples_of_their_own_are_apart() -> None:
    """An engine in fp8 samples otherwise, and its trainer ranks have the layout of those beside a whole one."""
    names = ("latent", "latent-fp8", "latent-tp2")
    runs: dict[str, Any] = {name: Mock(layout=LAYOUTS[name]) for name in names}
    jobs = jobs_of(runs, "cpu")
    whose = {(job.reference, job.variant): run for job, run in jobs.items() if run is not runs["latent-tp2"]}
    assert whose == {(name, variant): runs[name] for name in names[:2] for variant in (AS_RUN, "rounded")}
    assert len(jobs) == 5
