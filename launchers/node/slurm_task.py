"""The entry of a Slurm task: `srun … python -m launchers.node.slurm_task --run-dir RUN`, from the job script.

Light, so that signals count from the first moment on: what a task does takes seconds to import.
"""

from __future__ import annotations

from launchers.node import early


def main() -> None:
    """One task, started by srun: exit code 0 complete or paused, 1 failed, 143 stopped."""
    early.leave_at_once()
    from launchers.node.task import main as run

    run()


if __name__ == "__main__":
    main()
