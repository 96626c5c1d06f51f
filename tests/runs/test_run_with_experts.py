"""A whole run of a model with experts, which two trainer ranks share out."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.trajectory import read_step, step_path
from tests.support.tiny_models import EXPERTS
from tests.support.tiny_runs import ebbtide, events, write_run

pytestmark = pytest.mark.run


def test_engines_get_the_experts_of_all_ranks(tmp_path: Path) -> None:
    """Every sync is proven, engine and trainer agree, and the model that is saved is the trained one."""
    import numpy as np
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    run_dir = tmp_path / "out"
    run_file = write_run(
        tmp_path,
        kind=EXPERTS,
        placement={"device": "cpu", "trainers_per_node": 2, "expert_parallel": 2, "check_sync": 1},
        rollout={"num_rollout": 3},
        train={"use_distributed_optimizer": True},
        algorithm={"kl_loss_coef": 0.1},
    )
    planned = ebbtide("plan", str(run_file))
    assert planned.returncode == 0, planned.stdout + planned.stderr
    done = ebbtide("run", str(run_file), "--run-dir", str(run_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = [event["metrics"] for event in events(run_dir, "step")]
    assert len(metrics) == 3
    assert all(m["train/train_rollout_logprob_abs_diff"] < 1e-5 for m in metrics)
    assert all(m["train/train_rollout_logprob_abs_diff_max"] < 1e-3 for m in metrics)
    first, last = (read_step(step_path(run_dir, step)) for step in (0, 2))
    for record, is_the_policy in ((first, True), (last, False)):
        assert record.logprobs_ref is not None
        gap = np.abs(record.logprobs_ref.values - record.logprobs_old.values).max()
        assert (gap < 1e-5) == is_the_policy, gap
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", run_dir / "hf"))
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(changed) > 0.9 * len(before)  # all but experts that no token chose
    AutoModelForCausalLM.from_pretrained(run_dir / "hf", dtype=torch.float32)
