"""The sink `tensorboard`: event files in the run directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.run_dir.run_directory import RunDirectory
from core.sinks.sink import RunInfo, evaluation_scalars


class TensorBoard:
    """Writes event files, and each step at once, so that curves can be watched."""

    def begin(self, run: RunInfo) -> None:
        """Open a new event file."""
        from torch.utils.tensorboard import SummaryWriter

        # what an earlier attempt logged beyond its last checkpoint is hidden, not shown twice
        folder = RunDirectory(run.directory).tensorboard
        self._board: Any = SummaryWriter(str(folder), purge_step=run.first_step)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """One scalar per metric."""
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()

    def evaluation(self, step: int, results: Mapping[str, Mapping[str, float]]) -> None:
        """One scalar per rate."""
        self.step(step, evaluation_scalars(results))

    def end(self) -> None:
        """Close the file."""
        self._board.close()
