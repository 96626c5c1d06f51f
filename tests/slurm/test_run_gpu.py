"""`ebbtide submit` with a GPU that Slurm hands out: an ordinary job, and one whose rewards are on a node without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.slurm_cluster import Cluster
from tests.support.slurm_runs import attempts, complete, losses, prepare, submit, tell
from tests.support.tiny_models import GPU_SIZES, tiny_model

pytestmark = [pytest.mark.gpu, pytest.mark.slurm, pytest.mark.run, pytest.mark.timeout(900)]

PLACEMENT = {"device": "auto", "engine_memory_fraction": 0.2, "start_timeout_s": 400, "silence_timeout_s": 60}
REWARDS_APART = {"components": [{"role": "trainers"}, {"role": "rewards", "num_workers": 2}]}


@pytest.mark.parametrize("slurm", [{}, REWARDS_APART], ids=["ordinary", "heterogeneous"])
def test_a_job_with_a_gpu(slurm: dict[str, Any], cluster_with_gpu: Cluster, tmp_path: Path) -> None:
    run_file = prepare(tmp_path, placement=PLACEMENT, slurm=slurm)
    tiny_model("qwen3-tied", tmp_path / "model", **GPU_SIZES)
    run_dir = tmp_path / "out"
    job = submit(run_file, run_dir)
    assert "gres:gpu:1" in cluster_with_gpu.run("scontrol", "show", "job", job), "Slurm was asked for a GPU"
    complete(cluster_with_gpu, job, run_dir, 400)
    assert len(losses(run_dir)) == 4, tell(run_dir)
    assert [(a.how, len(a.nodes)) for a in attempts(run_dir)] == [("complete", 2 if slurm else 1)]
    log = (run_dir / "attempts/1/trainer-0.log").read_text()
    assert "residency=update" in log, "only on a GPU"
