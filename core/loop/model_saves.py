"""The model as a HuggingFace directory: at the end of a run, and after steps that the run file asks for."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Protocol

import torch.distributed as dist

from common.files import put_in_place
from core.run_dir.run_directory import RunDirectory

log = logging.getLogger(__name__)


class Exportable(Protocol):
    """Who has a model: the trainer."""

    def save_hf(self, directory: Path) -> None:
        """Write the model as a HuggingFace directory. Collective: all trainer ranks; rank 0 writes."""
        ...


class Exporter(Protocol):
    """Who reads a model out of what was saved: the trainer, too."""

    def export(self, saved: Path, directory: Path) -> None:
        """Write the model in the files of `save` as a HuggingFace directory. Collective: none; in any thread."""
        ...


class ModelSaves:
    """Writes models of a run out of its checkpoints, as these are written. All are kept."""

    def __init__(self, directory: RunDirectory, trainer: Exporter, *, interval: int, num_steps: int) -> None:
        """Keep where models go, and how often: `interval` steps. What is after the last step goes to `hf_model`."""
        self._directory = directory
        self._trainer = trainer
        self._interval = interval
        self._num_steps = num_steps

    def due(self, step: int) -> bool:
        """Whether a model is to be written once `step` steps are complete."""
        return 0 < step < self._num_steps and step % self._interval == 0

    def save(self, step: int, saved: Path) -> None:
        """Write the model after this number of steps, which the trainer's files in `saved` hold.

        Collective: none; one rank calls, in any thread.
        """
        final = self._directory.model_after(step)
        unfinished = _unfinished(final)
        shutil.rmtree(unfinished, ignore_errors=True)
        self._trainer.export(saved, unfinished)
        _finish(unfinished, final)


def save_model(trainer: Exportable, final: Path) -> None:
    """Write the model; it appears whole or not at all, in place of one that is there. Collective: all trainer ranks."""
    unfinished = _unfinished(final)
    if dist.get_rank() == 0:
        shutil.rmtree(unfinished, ignore_errors=True)
    trainer.save_hf(unfinished)
    if dist.get_rank() == 0:
        _finish(unfinished, final)


def _unfinished(final: Path) -> Path:
    return final.with_name(f"{final.name}.unfinished")


def _finish(unfinished: Path, final: Path) -> None:
    put_in_place(unfinished, final)
    log.info("model=%s", final)
