"""A schedule without a step: the model is evaluated once, by engines that have it from their start.

Left out: checkpoints. An evaluation that was broken off begins anew.
Collective: all trainer ranks call it.
"""

from __future__ import annotations

from core.loop.parts import Parts
from core.loop.step_requests import weight_version


class Evaluate:
    """Evaluates every set of the run file."""

    trains = False  # it calls nothing of the trainer: there need not be one

    def __init__(self, step: int = 0) -> None:
        """Keep what the model is.

        Args:
            step: the number of steps after which a run had it: it decides the seeds, and the names of files.
        """
        self._step = step

    def __call__(self, parts: Parts) -> bool:
        """Evaluate; True, as there is nothing to go on with. Collective: all trainer ranks."""
        step, version = self._step, weight_version(self._step)
        with parts.phase("sync", step):
            parts.sync.push(version)
        with parts.phase("eval", step):
            parts.journal.evaluated(step, parts.evaluation.run(step, version))
        return True
