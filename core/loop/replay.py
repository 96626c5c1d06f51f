"""A schedule without engines: the updates of steps that another run has stored, once more.

    steps/step_000004.h5 of the run ─► samples, their rewards ─► advantages ─► update ─► this run's own step file

Rewards and tokens are those of the store; advantages and the loss are computed anew, as the run file of this run says.
Left out: what a step file does not have. An estimator that reads more than rewards, lengths, masks and log-probs of
the engine has no door for it either.
Collective: all trainer ranks call it.
"""

from __future__ import annotations

from pathlib import Path

from core.algorithm.batch import make_batch
from core.config import load_run_file
from core.loop.parts import Parts
from core.loop.state import LoopState
from core.run_dir.run_directory import RunDirectory
from core.trajectory import read_step, step_path, stored_samples, was_on_policy


class Replay:
    """Repeats steps of a run up to one of them."""

    samples = False  # it asks for none: there need not be an engine

    def __init__(self, run: str, begin: int, last: int, *, keep: bool = False) -> None:
        """Keep what to repeat.

        Args:
            run: the directory of the run that has stored the steps.
            begin: the steps that its checkpoint holds, from which to go on; 0: the model that the run began with.
            last: the step to end with.
            keep: write a checkpoint then.
        """
        self._run = RunDirectory(Path(run))
        # then equal log-probs say nothing of the samples
        self._old_from_engine = load_run_file(self._run.run_file).algorithm.old_logprobs == "engine"
        self._begin = begin
        self._last = last
        self._keep = keep

    def __call__(self, parts: Parts) -> bool:
        """Repeat the steps from where this run stands, else from where the other's checkpoint does; True.

        Collective: all trainer ranks.
        """
        if self._begin > parts.state.next_step:
            with parts.phase("update", self._begin):
                parts.trainer.load(self._run.checkpoint(self._begin) / "trainer")
            parts.state = LoopState(self._begin)
        for step in range(parts.state.next_step, self._last + 1):
            self._repeat(parts, step)
        if self._keep:
            with parts.phase("save", parts.state.next_step):
                parts.checkpoints.save(parts.state)
        return True

    def _repeat(self, parts: Parts, step: int) -> None:
        record = read_step(step_path(self._run.path, step))
        with parts.phase("update", step):
            on_policy = self._old_from_engine or was_on_policy(record)
            batch = make_batch(stored_samples(record), parts.advantages, on_policy=on_policy)
            result = parts.trainer.update(batch.train_samples())
        parts.journal.stepped(step, batch, result, parts.phase.take_times())
        parts.state = parts.state.after_step(0)
