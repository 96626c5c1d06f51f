"""How an attempt ends, as the agent of one node comes to know it: decided by somebody else, or by what fails here.

The leader judges by what all nodes saw. The others report what they saw and hear the outcome, or miss the leader.
"""

from __future__ import annotations

import time
from pathlib import Path

from common.waiting import wait_until
from core.config.schema import RunConfig
from core.processes import keys
from core.processes.rendezvous import Rendezvous
from core.run_dir.moment import Moment
from launchers.attempts.failure import Failure, read_record
from launchers.attempts.judgement import (
    agents_failed,
    blame,
    judge_records,
    leave_records,
    lost_node,
    outcome_of,
    outcome_when_ended,
)
from launchers.attempts.outcome import Outcome
from launchers.attempts.stop_request import StopRequest
from launchers.node.last_words import SILENCE_S, gone_without_a_word
from launchers.node.pulse import BEAT_S, Pulse
from launchers.node.seat import Seat
from launchers.node.signals import Signals

GOODBYE_S = 10.0


class Ending:
    """What is known of the end of one attempt."""

    def __init__(
        self, config: RunConfig, folder: Path, seat: Seat, rendezvous: Rendezvous, pulse: Pulse, signals: Signals
    ) -> None:
        """Know of none yet.

        Args:
            folder: of the attempt.
        """
        self.stop_request = StopRequest(folder)
        self._config, self._folder, self._seat = config, folder, seat
        self._rendezvous, self._pulse, self._signals = rendezvous, pulse, signals
        self._step: tuple[int | None, float] = (None, time.monotonic())  # under way, and since when

    @property
    def is_near(self) -> bool:
        """Whether somebody wants an end, or an agent has failed: nobody need wait for the nodes to become fit."""
        return self._signals.asked or self.stop_request.made or agents_failed(self._folder)

    def note_step(self) -> None:
        """Note since when the step has been under way; to be asked all the time."""
        if self._pulse.moment.step != self._step[0]:
            self._step = self._pulse.moment.step, time.monotonic()

    def decided(self) -> Outcome | None:
        """The outcome that somebody else has decided: the user, the leader, or the leader's silence; else None."""
        leads = self._seat.leads
        if self._signals.stop_asked:
            # Slurm ends all tasks of a step when one has failed; who missed this one while it was away has judged
            if leads and (agents_failed(self._folder) or read_record(self._folder) is not None):
                return self.after([])
            return self._ended_for_another() or self._when_ended()
        if leads and self.stop_request.made and self._pulse.moment == Moment():  # nothing to be saved
            return Outcome("interrupted", cause="stopped before its first step")
        if (text := self._pulse.value(keys.ENDED)) is not None:
            return Outcome.from_json(text)
        if not leads and self._pulse.leader_lost():
            failure = self._lost(0)
            leave_records(self._folder, [failure], leads=False)
            return outcome_of(failure)
        return None

    def after(self, failures: list[Failure]) -> Outcome:
        """The outcome of the attempt after failures: the leader judges, the others report and hear it."""
        seat, silence_s = self._seat, self._config.placement.silence_timeout_s
        leave_records(self._folder, failures, seat.leads)
        if seat.leads:
            reporter = self._pulse.value(keys.FAILED) or seat.name
            return judge_records(
                self._folder,
                failures,
                reporter,
                self._pulse.moment,
                missed=self.missed,
                patience_s=silence_s + 4 * BEAT_S if len(seat.names) > 1 else 0.0,
                in_haste=lambda: self._signals.stop_asked,
            )
        self._pulse.post(keys.FAILED, seat.name)
        # the leader may have to wait for a node to fall silent; and the leader itself may be the one
        wait_until(lambda: self.decided() is not None, silence_s + GOODBYE_S)
        return self.decided() or outcome_of(failures[0])

    def missed(self) -> list[Failure]:
        """Leader: nodes that have fallen silent."""
        return [self._lost(node) for node in self._pulse.lost_nodes()]

    def _lost(self, node: int) -> Failure:
        return lost_node(self._seat.names[node], self._pulse.moment, self._config.placement.silence_timeout_s)

    def _when_ended(self) -> Outcome:
        if self._seat.leads:
            self._pulse.look_again()
            self.note_step()
        ends_at, signal_s, signals = self._seat.ends_at, self._config.slurm.signal_s, self._signals
        left_s = None if ends_at is None else ends_at - time.time()
        if left_s is not None and signals.paused_for == "timeout":  # a limit that was lowered ends sooner than known
            left_s = min(left_s, signals.warned_at + signal_s - time.monotonic())
        step_s = time.monotonic() - self._step[1]
        return outcome_when_ended(signals.paused_for, self._pulse.moment, step_s, signal_s, left_s)

    def _ended_for_another(self) -> Outcome | None:
        """Leader: the outcome where Slurm ends all tasks because another node's agent is gone; None: it is not so."""
        if not self._seat.leads or self._signals.paused_for is not None:
            return None
        names = self._seat.names
        gone = gone_without_a_word(self._rendezvous, self._pulse, len(names))
        failures = [lost_node(names[node], self._pulse.moment, SILENCE_S) for node in gone]
        leave_records(self._folder, failures, leads=True)
        return blame(self._folder, failures[0], failures) if failures else None
