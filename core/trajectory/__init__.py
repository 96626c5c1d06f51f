"""The trajectory store: every sample of every step, in one HDF5 file per step. Layout: docs/trajectory.md."""

from core.trajectory.ragged import Ragged
from core.trajectory.record import StepRecord
from core.trajectory.store import (
    TrajectoryError,
    evaluated_sets,
    evaluation_path,
    list_evaluations,
    list_steps,
    read_step,
    step_path,
    write_step,
)
from core.trajectory.stored_samples import stored_samples, was_on_policy

__all__ = [
    "Ragged",
    "StepRecord",
    "TrajectoryError",
    "evaluated_sets",
    "evaluation_path",
    "list_evaluations",
    "list_steps",
    "read_step",
    "step_path",
    "stored_samples",
    "was_on_policy",
    "write_step",
]
