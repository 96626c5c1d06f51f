from __future__ import annotations

import json
from pathlib import Path

import pytest
from step_samples import make_samples

from core.batch import Batch
from core.config import load_run_file
from core.journal import Journal
from core.packing import UpdateResult
from core.progress import Progress
from core.run_directory import RunDirectory
from tests.core.config.good_run import write_run

ELSEWHERE = "slurm.components=[{role: trainers}, {role: engines, nodes: 2, engines_per_node: 3}]"
SIZES = ["placement.num_nodes=2", "placement.engines_per_node=2", "placement.engine_tensor_parallel=2"]


@pytest.mark.parametrize(("more", "num_gpus"), [([], 8), ([ELSEWHERE], 20)], ids=["colocated", "also elsewhere"])
def test_the_rate_per_gpu_counts_the_gpus_of_all_engines(more: list[str], num_gpus: int, tmp_path: Path) -> None:
    config = load_run_file(write_run(tmp_path), [*SIZES, "logging.tensorboard=false", *more])
    directory = RunDirectory(tmp_path)
    samples = make_samples(2, 4)
    result = UpdateResult({}, [[0.0] * len(sample.response_tokens) for sample in samples])
    journal = Journal(directory, config, Progress(directory.progress), 0, active=True)
    journal.stepped(0, Batch(samples, [0.0] * len(samples)), result, {"perf/rollout_time": 0.5})
    event = json.loads(directory.progress.read_text())
    num_tokens = sum(len(sample.response_tokens) for sample in samples)
    assert event["metrics"]["perf/tokens_per_gpu_per_sec"] == pytest.approx(num_tokens / 0.5 / num_gpus)
