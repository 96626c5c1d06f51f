"""The run directory: where a run leaves what it makes. Paths only; who writes a file knows its format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunDirectory:
    """One run's `run.yaml attempts/ steps/ checkpoints/ tensorboard/ progress.jsonl ledger.jsonl hf/`.

    Beside them, without a path here: `site.yaml` and `slurm/` (script, job record, logs) of a run that was submitted,
    `sync/` (weights on their way through files), `.lock` (one attempt at a time).
    """

    path: Path

    @property
    def run_file(self) -> Path:
        """The resolved run file."""
        return self.path / "run.yaml"

    @property
    def steps(self) -> Path:
        """The trajectory store."""
        return self.path / "steps"

    @property
    def checkpoints(self) -> Path:
        """One folder per kept checkpoint."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def progress(self) -> Path:
        """One JSON line per event: what the terminal shows."""
        return self.path / "progress.jsonl"

    @property
    def ledger(self) -> Path:
        """One JSON line per attempt: how it began and how it ended."""
        return self.path / "ledger.jsonl"

    @property
    def hf_model(self) -> Path:
        """The final model as a HuggingFace directory."""
        return self.path / "hf"

    def attempt(self, number: int) -> Path:
        """The folder of one attempt: logs and the failure record."""
        return self.path / "attempts" / str(number)

    def next_attempt(self) -> int:
        """The number after the highest one there is; attempts count from 1."""
        numbers = [int(p.name) for p in (self.path / "attempts").glob("*") if p.name.isdigit()]
        return max(numbers, default=0) + 1
