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
from core.run_dir.run_directory import RunDirectory
from launchers.attempts.failure import write_record
from launchers.attempts.judgement import agents_failed, leave_agent_record, outcome_when_left
from launchers.attempts.outcome import How, Outcome
from launchers.attempts.stop_request import STOPPED
from launchers.node.ending import GOODBYE_S, Ending
from launchers.node.gate import WATCHED, Gate
from launchers.node.ports import listen
from launchers.node.processes import NodeProcesses
from launchers.node.pulse import Pulse
from launchers.node.seat import Seat
from launchers.node.signals import Signals
from launchers.node.temporary import own_temporary_folder

WATCH_INTERVAL_S = 0.1

log = logging.getLogger("agent")


class NodeAgent:
    """One node's processes in one attempt."""

    def __init__(self, directory: RunDirectory, seat: Seat) -> None:
        self.config = load_run_file(directory.run_file)
        self.seat = seat
        self.folder = directory.attempt(seat.attempt)
        self._save_asked = False
        self.rendezvous = self._meet()
        self.processes = NodeProcesses(self.config, directory, seat)
        watched = {keys.ENDED, keys.FAILED, *WATCHED, *self.processes.watched}
        silence_s = self.config.placement.silence_timeout_s
        self.pulse = Pulse(self.rendezvous, seat.node, len(seat.names), sorted(watched), silence_s)
        self.signals = Signals(self.pulse, seat.node)
        self.ending = Ending(self.config, self.folder, seat, self.rendezvous, self.pulse, self.signals)
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
            unfit = self.gate.pass_as_leader(self.rendezvous, lambda: self.ending.is_near)
            if unfit or agents_failed(self.folder):
                return self.ending.after(unfit)
        else:
            self.gate.pass_as_follower(self.pulse, lambda: self.ending.decided() is not None)
        if (outcome := self.ending.decided()) is not None:
            return outcome
        if self.seat.leads and self.signals.paused_for is not None:
            how: How = "timeout" if self.signals.paused_for == "timeout" else "preempted"
            return Outcome(how, cause="the cluster's warning came before anything had started")
        self.pulse.forget(WATCHED)
        return None

    def _watch(self) -> Outcome:
        while True:
            self.ending.note_step()
            self.processes.look_after_shared_memory()
            if (outcome := self.ending.decided()) is not None:
                return outcome
            if (failure := self.processes.keep_running(self.pulse)) is not None:
                return self.ending.after([failure])
            if self.seat.leads:
                self._pass_on_stop_request()
                if self.pulse.value(keys.FAILED) is not None:
                    return self.ending.after([])
                if lost := self.ending.missed():
                    return self.ending.after(lost)
                if self.processes.trainers_done:
                    return outcome_when_left(self.rendezvous.get(keys.PAUSED))  # torchrun leaves with all others
            time.sleep(WATCH_INTERVAL_S)

    def _pass_on_stop_request(self) -> None:
        if self.ending.stop_request.made and not self._save_asked:
            self._save_asked = True
            log.info("asked to save and end")
            self.pulse.post(keys.PAUSE_ASKED, STOPPED)

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
