"""One trainer rank's run: its parts, the schedule over them, the final model."""

from __future__ import annotations

import argparse
from contextlib import ExitStack, suppress

from common.mistake import Wrong
from core.doors import SCHEDULE
from core.loop.model_saves import save_model
from core.loop.parts import Parts, Schedule, overlaps
from core.plugins import where
from core.processes import keys
from core.processes.collective import any_rank
from core.rollout.rollout import PauseAsked
from core.run_dir.moment import Moment
from launchers.rank.apart import build_evaluating, build_replaying
from launchers.rank.this_rank import ThisRank
from launchers.rank.wiring import build

FAILED_WAIT_S = 30.0


def as_bool(complete: object, schedule: Schedule) -> bool:
    """What a schedule has returned, which may be anything if a user wrote it.

    Raises:
        Wrong: it is no bool.
    """
    if not isinstance(complete, bool):
        found = f"{complete!r} from {where(schedule)} ({SCHEDULE.key})"
        raise Wrong(found, SCHEDULE.gives, "return True after the last step, False where it pauses")
    return complete


class RankRun:
    """A run from its latest checkpoint to its last step. Collective: all trainer ranks make one and call both."""

    def __init__(self, seat: argparse.Namespace) -> None:
        """Keep what the rank was started with.

        Args:
        seat: the options of `launchers.rank.trainer`: run_dir, attempt, node, store, host, ends_at.
        """
        self._rank = ThisRank.of(seat)
        self.parts: Parts | None = None

    def run(self) -> None:
        """Take back the latest checkpoint, turn the loop, write the final model.

        Raises:
            Wrong: the run file's schedule is none, does not fit the placement, or returns something else.
        """
        rank, placement = self._rank, self._rank.config.placement
        schedule: Schedule = SCHEDULE.build(placement.schedule, placement.schedule_options, placement.model_dump())
        with ExitStack() as stack:
            parts = self.parts = self._build(schedule, stack)
            about = {"num_steps": parts.num_steps, "eval_prompts": parts.evaluation.num_prompts}
            rank.progress.event("begin", step=parts.state.next_step, **about)
            complete = as_bool(self._turn(schedule, parts), schedule)
            parts.checkpoints.wait()
            if not complete:
                rank.progress.event("pause", step=parts.state.next_step)
                return
            if rank.config.checkpoint.model_at_end:
                with parts.phase("save", parts.num_steps):
                    save_model(parts.trainer, rank.directory.hf_model)
            rank.progress.event("end", step=parts.num_steps)

    def _build(self, schedule: Schedule, stack: ExitStack) -> Parts:
        """The parts of the run, as far as there are trainers, engines and rows."""
        if self._rank.config.placement.trainers == "none":
            return build_evaluating(self._rank, self._announce, stack)
        if not getattr(schedule, "samples", True):
            return build_replaying(self._rank, self._announce, stack)
        return build(self._rank, self._announce, overlaps(schedule), stack)

    def _turn(self, schedule: Schedule, parts: Parts) -> bool:
        """The schedule's loop; a pause that broke off a rollout is saved as the step began, whatever the schedule."""
        try:
            return schedule(parts)
        except PauseAsked as pause:
            with parts.phase("save", parts.state.next_step):
                parts.checkpoints.ensure(parts.state)
            if self._rank.first:
                self._rank.rendezvous.set(keys.PAUSED, str(pause))
            return False

    def finish_saving(self) -> None:
        """Give a checkpoint that is being written a while to get whole, where this rank ends by a failure."""
        with suppress(Exception):  # there is a failure to tell of already
            if self.parts is not None:
                self.parts.checkpoints.wait(FAILED_WAIT_S)

    def await_others(self) -> None:
        """Return when all ranks have finished."""
        any_rank(False)

    @property
    def moment(self) -> Moment:
        """What this rank is doing, for its failure record."""
        return self.parts.phase.current if self.parts else Moment()

    def _announce(self, moment: Moment) -> None:
        """Tell the node agents (for a failure record) and the terminal what the run is doing."""
        if self._rank.first:
            self._rank.rendezvous.set(keys.PHASE, moment.to_json())
        self._rank.progress.event("phase", **moment.fields())
