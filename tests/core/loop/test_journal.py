from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.algorithm.batch import Batch
from core.config import load_run_file
from core.loop.journal import Journal
from core.rollout.seeds import sample_seed
from core.run_dir.progress import Progress
from core.run_dir.run_directory import RunDirectory
from core.samples import Sample, UpdateResult
from core.trajectory import read_step, step_path
from tests.support.good_run import write_run
from tests.support.step_samples import make_samples

ELSEWHERE = "slurm.components=[{role: trainers}, {role: engines, nodes: 2, engines_per_node: 3}]"
SIZES = ["placement.num_nodes=2", "placement.engines_per_node=2", "placement.engine_tensor_parallel=2"]


TIMES = {"perf/rollout_time": 0.5}


def update_of(samples: list[Sample], logprobs_ref: list[list[float]] | None = None) -> UpdateResult:
    """An update that has found log-prob 0 for every token."""
    return UpdateResult({}, [[0.0] * len(sample.response_tokens) for sample in samples], logprobs_ref)


@pytest.mark.parametrize(("more", "num_gpus"), [([], 8), ([ELSEWHERE], 20)], ids=["colocated", "also elsewhere"])
def test_the_rate_per_gpu_counts_the_gpus_of_all_engines(more: list[str], num_gpus: int, tmp_path: Path) -> None:
    config = load_run_file(write_run(tmp_path), [*SIZES, "logging.tensorboard=false", *more])
    directory = RunDirectory(tmp_path)
    samples = make_samples(2, 4)
    journal = Journal(directory, config, Progress(directory.progress), 0, active=True)
    journal.stepped(0, Batch(samples, [0.0] * len(samples)), update_of(samples), TIMES)
    event = json.loads(directory.progress.read_text())
    num_tokens = sum(len(sample.response_tokens) for sample in samples)
    assert event["metrics"]["perf/tokens_per_gpu_per_sec"] == pytest.approx(num_tokens / 0.5 / num_gpus)


@pytest.mark.parametrize("has_reference", [True, False], ids=["with a reference", "without"])
def test_a_step_file_has_the_seeds_and_the_reference_log_probs(has_reference: bool, tmp_path: Path) -> None:
    config = load_run_file(write_run(tmp_path), ["logging.tensorboard=false", "rollout.seed=77"])
    samples = make_samples(3, 2)
    references = [[-0.5 * place for place in range(len(sample.response_tokens))] for sample in samples]
    journal = Journal(RunDirectory(tmp_path), config, Progress(tmp_path / "p"), 0, active=True)
    update = update_of(samples, references if has_reference else None)
    journal.stepped(4, Batch(samples, [0.0] * len(samples)), update, TIMES)
    found = read_step(step_path(tmp_path, 4))
    wanted = [sample_seed(77, "train", 4, group, index) for group in range(3) for index in range(2)]
    assert found.seed is not None
    assert found.seed.tolist() == wanted
    if not has_reference:
        assert found.logprobs_ref is None
        return
    assert found.logprobs_ref is not None
    assert [found.logprobs_ref[sample].tolist() for sample in range(len(samples))] == references
