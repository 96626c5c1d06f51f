"""The small run that a case disturbs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from core.config.sections.checkpoint import CheckpointConfig
from tests.stress.case import NUM_STEPS, SIGNAL_S, Layout
from tests.support.tiny_runs import write_run

REWARD = '''
import time


def reward(sample):
    """A step of 16 samples takes at least 0.8 s, so that faults meet it."""
    time.sleep(0.05)
    return (sum(map(ord, sample.response_text)) % 101) / 100
'''
SILENCE_S = 10.0
# said because `write_run` says otherwise
CHECKPOINT_DEFAULTS = {name: CheckpointConfig().model_dump()[name] for name in ("interval", "every")}


def write(
    folder: Path, layout: Layout, interval: int | None, scratch: Path | None = None, num_steps: int = NUM_STEPS
) -> Path:
    """The run file of a layout, with what it needs, and a site file, beside it.

    Args:
        interval: steps from checkpoint to checkpoint; None: as where a run file says nothing of checkpoints.
    """
    placement: dict[str, Any] = {
        "device": "cpu",
        "num_nodes": layout.nodes,
        "trainers_per_node": layout.trainers,
        "tensor_parallel": layout.tensor_parallel,
        "engines_per_node": layout.engines,
        "silence_timeout_s": SILENCE_S,
        "start_timeout_s": 240,
        "collective_timeout_s": 120,
    }
    slurm: dict[str, Any] = {"time": "10", "signal_s": SIGNAL_S}
    if layout.rewards:
        slurm["components"] = [{"role": "trainers"}, {"role": "rewards"}]
    run_file = write_run(
        folder,
        rollout={"num_rollout": num_steps, "request_timeout_s": 20},
        placement=placement,
        checkpoint=CHECKPOINT_DEFAULTS if interval is None else {"interval": interval},
        slurm=slurm,
    )
    (folder / "reward.py").write_text(REWARD)
    site = {"shared_filesystems": [str(folder.parent)], **({"scratch": str(scratch)} if scratch else {})}
    (folder / "site.yaml").write_text(yaml.safe_dump(site))
    return run_file
