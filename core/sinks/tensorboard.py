"""The sink `tensorboard`: event files in the run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from core.run_dir.run_directory import RunDirectory
from core.sinks.shown import markdown_table
from core.sinks.sink import RunInfo, ShownSample, evaluation_scalars


class TensorBoard:
    """Writes event files, and each step at once, so that curves can be watched."""

    def begin(self, run: RunInfo) -> None:
        """Open a new event file."""
        from torch.utils.tensorboard import SummaryWriter

        # what an earlier attempt logged beyond its last checkpoint is hidden, not shown twice
        folder = RunDirectory(run.directory).tensorboard
        self._board: Any = SummaryWriter(str(folder), purge_step=run.first_step)
        lines = yaml.safe_dump(dict(run.run_file), sort_keys=False, allow_unicode=True).splitlines()
        self._board.add_text("run_file", "\n".join(f"    {line}" for line in lines), run.first_step)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """One scalar per metric."""
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()

    def samples(self, step: int, samples: Sequence[ShownSample]) -> None:
        """A table under the tab "text"."""
        self._board.add_text("samples", markdown_table(samples), step)
        self._board.flush()

    def evaluation(self, step: int, results: Mapping[str, Mapping[str, float]]) -> None:
        """One scalar per rate."""
        self.step(step, evaluation_scalars(results))

    def end(self) -> None:
        """Close the file."""
        self._board.close()
