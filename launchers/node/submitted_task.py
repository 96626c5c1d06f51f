"""What Submitit sends to the nodes: light enough to be made on a login node without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launchers.node import early


@dataclass(frozen=True)
class SubmittedTask:
    """One Slurm task of a run; returns what `task.SlurmTask` does, which is imported on the node only."""

    run_dir: Path

    def __call__(self) -> dict[str, Any]:
        early.leave_at_once()  # Submitit's own handlers pass over them
        from launchers.node.task import SlurmTask

        return SlurmTask(self.run_dir)()
