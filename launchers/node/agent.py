"""The node agent: starts the processes of its node, watches them and the other agents, and leaves nothing behind.

Started by `launchers.node.local_agent` on a machine without a cluster, or by Slurm, one task per node, through
`launchers.node.slurm_task`. The agent of node 0 leads: it serves the store, judges whether the nodes are fit, and says
how the attempt ended. An engine or a reward server that dies is restarted, as often as the run file allows; a trainer
rank or a node that dies ends the attempt on all nodes.

    gate ──fit──► running ──► ended      leader: says how, waits until the others have heard it, leaves
      └──unfit──────────────────┘        others: hear it, or miss the leader for too long
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from common.waiting import wait_until
from core.config import load_run_file
from core.processes import keys
from core.processes.children import kill_descendants
from core.processes.rendezvous import Address, Rendezvous
from core.run_dir.moment import Moment
from core.run_dir.run_directory import RunDirectory
from launchers.attempts.failure import Failure, read_record, write_record
from launchers.attempts.judgement import (
    agents_failed,
    blame,
    judge_records,
    leave_agent_record,
    leave_records,
    lost_node,
    outcome_of,
    outcome_when_ended,
    outcome_when_left,
)
from launchers.attempts.outcome import How, Outcome
from launchers.attempts.stop_request import STOPPED, StopRequest
from launchers.node.gate import WATCHED, Gate
from launchers.node.last_words import SILENCE_S, gone_without_a_word
from launchers.node.ports import listen
from launchers.node.processes import NodeProcesses
from launchers.node.pulse import BEAT_S, Pulse
from launchers.node.seat import Seat
from launchers.node.signals import Signals
from launchers.node.temporary import own_temporary_folder

WATCH_INTERVAL_S = 0.1
GOODBYE_S = 10.0

log = logging.getLogger("agent")


class NodeAgent:
    """One node's processes in one attempt."""

    def __init__(self, directory: RunDirectory, seat: Seat) -> None:
        self.config = load_run_file(directory.run_file)
        self.seat = seat
        self.folder = directory.attempt(seat.attempt)
        self._stop_request = StopRequest(self.folder)
        self._save_asked = False
        self._step: tuple[int | None, float] = (None, time.monotonic())  # under way, and since when
        self.rendezvous = self._meet()
        self.processes = NodeProcesses(self.config, directory, seat)
        watched = {keys.ENDED, keys.FAILED, *WATCHED, *self.processes.watched}
        silence_s = self.config.placement.silence_timeout_s
        self.pulse = Pulse(self.rendezvous, seat.node, len(seat.names), sorted(watched), silence_s)
        self.signals = Signals(self.pulse, seat.node)
        self.gate = Gate(self.config, directory, seat)

    def run(self, conclude: Callable[[Outcome], None], temporary: Path) -> Outcome:
        """Start everything, watch until the attempt ends, clean up.

        Args:
            conclude: called as soon as it is known how the attempt ended. When a task of a job fails, Slurm ends the
                others soon after, so what is to be written about the end is written first.
            temporary: this agent's own folder.
        """
        self.processes.note_in(temporary)
        try:
            self.pulse.start()
            outcome = self._pass_gate()
            if outcome is None:
                self.processes.start(self.pulse, str(self.rendezvous.address))
                outcome = self._watch()
            log.info("ended: %s", outcome.how)
            conclude(outcome)
            if self.seat.leads:
                self.pulse.post(keys.ENDED, outcome.to_json())
        finally:
            self.processes.end()
        self._say_goodbye()
        return outcome

    def _pass_gate(self) -> Outcome | None:
        """The outcome of an attempt that ends at the gate; None when all nodes are fit."""
        if self.seat.leads:
            unfit = self.gate.pass_as_leader(self.rendezvous, self._is_to_end)
            if unfit or agents_failed(self.folder):
                return self._outcome_after(unfit)
        else:
            self.gate.pass_as_follower(self.pulse, lambda: self._decided_outcome() is not None)
        if (outcome := self._decided_outcome()) is not None:
            return outcome
        if self.seat.leads and self.signals.paused_for is not None:
            how: How = "timeout" if self.signals.paused_for == "timeout" else "preempted"
            return Outcome(how, cause="the cluster's warning came before anything had started")
        self.pulse.forget(WATCHED)
        return None

    def _is_to_end(self) -> bool:
        return self.signals.asked or self._stop_request.made or agents_failed(self.folder)

    def _watch(self) -> Outcome:
        while True:
            self._note_step()
            self.processes.look_after_shared_memory()
            if (outcome := self._decided_outcome()) is not None:
                return outcome
            if (failure := self.processes.keep_running(self.pulse)) is not None:
                return self._outcome_after([failure])
            if self.seat.leads:
                self._pass_on_stop_request()
                if self.pulse.value(keys.FAILED) is not None:
                    return self._outcome_after([])
                if lost := self._missed():
                    return self._outcome_after(lost)
                if self.processes.trainers_done:
                    return outcome_when_left(self.rendezvous.get(keys.PAUSED))  # torchrun leaves with all others
            time.sleep(WATCH_INTERVAL_S)

    def _decided_outcome(self) -> Outcome | None:
        """The outcome that somebody else has decided: the user, the leader, or the leader's silence; else None."""
        if self.signals.stop_asked:
            # Slurm ends all tasks of a step when one has failed; who missed this one while it was away has judged
            if self.seat.leads and (agents_failed(self.folder) or read_record(self.folder) is not None):
                return self._outcome_after([])
            return self._ended_for_another() or self._when_ended()
        if self.seat.leads and self._stop_request.made and self.pulse.moment == Moment():  # nothing to be saved
            return Outcome("interrupted", cause="stopped before its first step")
        if (text := self.pulse.value(keys.ENDED)) is not None:
            return Outcome.from_json(text)
        if not self.seat.leads and self.pulse.leader_lost():
            failure = self._lost(0)
            leave_records(self.folder, [failure], leads=False)
            return outcome_of(failure)
        return None

    def _note_step(self) -> None:
        if self.pulse.moment.step != self._step[0]:
            self._step = self.pulse.moment.step, time.monotonic()

    def _when_ended(self) -> Outcome:
        if self.seat.leads:
            self.pulse.look_again()
            self._note_step()
        ends_at, signal_s = self.seat.ends_at, self.config.slurm.signal_s
        left_s, paused_for = None if ends_at is None else ends_at - time.time(), self.signals.paused_for
        if left_s is not None and paused_for == "timeout":  # a limit that was lowered ends sooner than known
            left_s = min(left_s, self.signals.warned_at + signal_s - time.monotonic())
        step_s = time.monotonic() - self._step[1]
        return outcome_when_ended(paused_for, self.pulse.moment, step_s, signal_s, left_s)

    def _ended_for_another(self) -> Outcome | None:
        """Leader: the outcome where Slurm ends all tasks because another node's agent is gone; None: it is not so."""
        if not self.seat.leads or self.signals.paused_for is not None:
            return None
        gone = gone_without_a_word(self.rendezvous, self.pulse, len(self.seat.names))
        failures = [lost_node(self.seat.names[node], self.pulse.moment, SILENCE_S) for node in gone]
        leave_records(self.folder, failures, leads=True)
        return blame(self.folder, failures[0], failures) if failures else None

    def _pass_on_stop_request(self) -> None:
        if self._stop_request.made and not self._save_asked:
            self._save_asked = True
            log.info("asked to save and end")
            self.pulse.post(keys.PAUSE_ASKED, STOPPED)

    def _lost(self, node: int) -> Failure:
        return lost_node(self.seat.names[node], self.pulse.moment, self.config.placement.silence_timeout_s)

    def _outcome_after(self, failures: list[Failure]) -> Outcome:
        """The outcome of the attempt after failures: the leader judges, the others report and hear it."""
        leave_records(self.folder, failures, self.seat.leads)
        if self.seat.leads:
            reporter = self.pulse.value(keys.FAILED) or self.seat.name
            patience_s = self.config.placement.silence_timeout_s + 4 * BEAT_S if len(self.seat.names) > 1 else 0.0
            return judge_records(
                self.folder,
                failures,
                reporter,
                self.pulse.moment,
                missed=self._missed,
                patience_s=patience_s,
                in_haste=lambda: self.signals.stop_asked,
            )
        self.pulse.post(keys.FAILED, self.seat.name)
        # the leader may have to wait for a node to fall silent; and the leader itself may be the one
        wait_until(lambda: self._decided_outcome() is not None, self.config.placement.silence_timeout_s + GOODBYE_S)
        return self._decided_outcome() or outcome_of(failures[0])

    def _missed(self) -> list[Failure]:
        return [self._lost(node) for node in self.pulse.lost_nodes()]

    def _say_goodbye(self) -> None:
        """The leader leaves last, because it serves the store."""
        if not self.seat.leads:
            self.pulse.count(keys.LEFT)
        self.pulse.stop()
        if self.seat.leads:
            others = len(self.seat.names) - 1
            wait_until(lambda: self.rendezvous.add(keys.LEFT, 0) >= others, GOODBYE_S)

    def _meet(self) -> Rendezvous:
        """The leader serves the store; the others connect to it."""
        seat = self.seat
        if seat.store is not None:
            return Rendezvous(seat.store, seat.attempt, seat.key)
        listener = listen(seat.host, seat.ports)
        address = Address(seat.host, int(listener.getsockname()[1]))
        return Rendezvous(address, seat.attempt, seat.key, listener=listener)


def run_agent(
    directory: RunDirectory,
    seat: Seat,
    pause_reason: Callable[[], str],
    call: Callable[[Address], None] = lambda _: None,
    conclude: Callable[[Outcome], None] = lambda _: None,
) -> Outcome:
    """Run a node agent; an error of its own becomes a failed outcome with a record, and leaves no process behind.

    Args:
        pause_reason: called in a SIGUSR2 handler: why the cluster wants this run to pause.
        call: leader: tells the other nodes where the store is, once it is served.
        conclude: leader: writes down how the attempt ended, as soon as that is known.
    """
    folder = directory.attempt(seat.attempt)
    concluded: list[Outcome] = []

    def conclude_once(outcome: Outcome) -> None:
        conclude(outcome)
        concluded.append(outcome)

    os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:2")  # torch looks up every peer's name, and waits for it
    try:
        agent = NodeAgent(directory, seat)
        with agent.signals.obeyed(pause_reason), own_temporary_folder(seat.scratch) as own:
            call(agent.rendezvous.address)
            return agent.run(conclude_once, own)
    except Exception as error:
        if concluded:
            log.exception("after the end")
            return concluded[0]
        kill_descendants()
        failure = leave_agent_record(folder, seat.node, error)
        if seat.leads:
            write_record(folder, failure)
        log.exception("agent failed")
        outcome = Outcome("failed", cause=str(failure).splitlines()[0])
        conclude(outcome)
        return outcome
