"""The gate before a run: every node says how it is, and the leader lets the run begin only if all are fit.

    leader: canary ──► reports of all ──► who listens where ──► who reaches whom ──► open, or who is unfit and why
    others:   └─► probe, report               └─► connect to the next node ─┘

What all nodes report alike, such as a run directory without room, is no node's fault: nobody is named, and the leader
asks all of them again when it has gone, for as long as a start may take. Followers read the store through their pulse,
so that a leader that dies meanwhile does not hold them.
"""

from __future__ import annotations

import json
import logging
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

from common.mistake import Mistake
from common.waiting import wait_until
from core.config.layout import nodes
from core.config.schema import RunConfig
from core.processes import keys
from core.processes.keys import Key
from core.processes.rendezvous import Rendezvous
from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.moment import Moment
from core.run_dir.run_directory import RunDirectory
from hpc.node.complaints import complaints, of_all
from hpc.node.health import NodeReport, Wanted, probe_node, write_canary
from launchers.attempts.failure import Failure
from launchers.node.network import reaches
from launchers.node.ports import listen
from launchers.node.pulse import Pulse
from launchers.node.seat import Seat

WATCHED = (keys.GATE, keys.CANARY, keys.LISTENERS)
MIN_FREE_MIB = {"run": 1024, "/dev/shm": 32, "tmp": 256}
REACH_TIMEOUT_S = 10.0
LOOK_AGAIN_S = 5.0  # whether what all nodes complained of has gone

log = logging.getLogger("agent")


class Gate:
    """One node's way through it."""

    def __init__(self, config: RunConfig, directory: RunDirectory, seat: Seat) -> None:
        self._config = config
        self._nodes = nodes(config)
        self._directory = directory
        self._seat = seat
        self._attempt = AttemptFolder(directory.attempt(seat.attempt))
        self._canary = self._attempt.canary

    def pass_as_leader(self, rendezvous: Rendezvous, stopped: Callable[[], bool]) -> list[Failure]:
        """Judge all nodes; empty, and the gate open, if all are fit or a stop was asked meanwhile."""
        # at home somebody sits in front of it
        ends = time.monotonic() + (self._config.placement.start_timeout_s if self._seat.job else 0.0)
        try:
            with closing(listen(self._seat.host, self._seat.ports)) as listener:
                unfit = self._judge_in_rounds(rendezvous, listener, stopped, ends)
        finally:
            for path in (self._canary, self._attempt.waits):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        if not unfit:
            rendezvous.set(keys.GATE, "open")
        return unfit

    def pass_as_follower(self, pulse: Pulse, leave: Callable[[], bool]) -> None:
        """Report as often as asked, try the next node, and wait until the gate is open or `leave` says that there is
        no point.
        """
        node, answered = self._seat.node, None
        with closing(listen(self._seat.host, self._seat.ports)) as listener:
            while (listeners := pulse.value(keys.LISTENERS)) is None:
                if leave():
                    return
                if (asked := pulse.value(keys.CANARY)) not in (None, answered):
                    pulse.post(keys.health(node), self._report(str(asked), listener.getsockname()))
                    answered = asked
                time.sleep(0.05)
            pulse.post(keys.reach(node), _reach_next(node, json.loads(listeners)))
            _await_value(pulse, keys.GATE, leave)

    def _judge_in_rounds(
        self, rendezvous: Rendezvous, listener: socket.socket, stopped: Callable[[], bool], ends: float
    ) -> list[Failure]:
        """Ask all nodes how they are, again and again while all complain of the same; until `ends` (monotonic)."""
        number, text = 0, ""
        while True:
            number += 1
            try:
                text = text or write_canary(self._canary)
            except OSError as error:
                unfit, nobodys = list[Failure](), [self._unusable(error)]
            else:
                unfit, nobodys = self._ask_all(rendezvous, f"{number} {text}", listener, stopped)
            if unfit or not nobodys or stopped():
                return unfit
            self._tell(nobodys)
            gone = self._await_end_of(nobodys, stopped, ends)
            if stopped():
                return []
            if not gone:
                return [self._of_the_run(nobodys)]

    def _await_end_of(self, nobodys: list[Mistake], stopped: Callable[[], bool], ends: float) -> bool:
        """Whether this node has nothing of it to complain of any more, before `ends` (monotonic) or a stop."""
        looked = time.monotonic()

        def gone() -> bool:
            nonlocal looked
            if time.monotonic() - looked < LOOK_AGAIN_S:
                return stopped()
            found = self._have_gone(nobodys)
            looked = time.monotonic()
            return found or stopped()

        return wait_until(gone, ends - time.monotonic())

    def _ask_all(
        self, rendezvous: Rendezvous, asked: str, listener: socket.socket, stopped: Callable[[], bool]
    ) -> tuple[list[Failure], list[Mistake]]:
        """One round: nodes that are unfit; or, if there is none, what all complain of."""
        rendezvous.set(keys.CANARY, asked)
        rendezvous.set(keys.health(0), self._report(asked, listener.getsockname()))
        everyone = range(len(self._seat.names))

        def answered(node: int) -> bool:
            text = rendezvous.get(keys.health(node))
            return text is not None and json.loads(text)["asked"] == asked

        unfit = self._await(answered, stopped, "report")
        if unfit or stopped():
            return unfit, []
        reports = [json.loads(rendezvous.get(keys.health(node)) or "") for node in everyone]
        wrong = [self._complaints(node, entry, asked) for node, entry in enumerate(reports)]
        nobodys = of_all(wrong, str(self._directory.path))
        told = {node: [one for one in found if not any(map(one.is_like, nobodys))] for node, found in enumerate(wrong)}
        unfit = [self._failure(node, "; ".join(map(str, found))) for node, found in told.items() if found]
        if unfit or nobodys:
            return unfit, nobodys
        return self._unreachable(rendezvous, reports, stopped), []

    def _report(self, asked: str, listening: tuple[str, int]) -> str:
        report = probe_node(self._wanted(self._seat.node, asked.partition(" ")[2]), self._canary)
        return json.dumps({"asked": asked, "report": report.to_json(), "listening": listening})

    def _complaints(self, node: int, entry: dict[str, Any], asked: str) -> list[Mistake]:
        # its clock was read some time before all reports were here; what counts is a difference of minutes
        wanted = self._wanted(node, asked.partition(" ")[2])
        return complaints(NodeReport.from_json(entry["report"]), wanted, time.time())

    def _have_gone(self, nobodys: list[Mistake]) -> bool:
        """Whether this node, which complained like all others, would do so no more."""
        node = self._seat.node
        found = complaints(probe_node(self._wanted(node, "")), self._wanted(node, ""), time.time())
        return not any(one.is_like(other) for one in found for other in nobodys)

    def _tell(self, nobodys: list[Mistake]) -> None:
        """Say what is waited for, to the log and to whoever asks for the run's status."""
        text = f"waiting for what all nodes report: {_in_words(nobodys)}"
        log.warning("%s", text)
        with suppress(OSError):  # there may be no room for it
            self._attempt.waits.write_text(text + "\n")

    def _unusable(self, error: OSError) -> Mistake:
        found, wanted = error.strerror or str(error), "a directory to write to"
        return Mistake(str(self._directory.path), None, found, wanted, "see to its free space and permissions")

    def _of_the_run(self, nobodys: list[Mistake]) -> Failure:
        waited = f"; waited {self._config.placement.start_timeout_s:.0f} s for it to go" if self._seat.job else ""
        cause = f"all nodes ({', '.join(self._seat.names)}) report: {_in_words(nobodys)}{waited}"
        return Failure("run", self._config.name, Moment(), cause, 0)

    def _wanted(self, node: int, canary: str) -> Wanted:
        """Demands on a node. On a cluster a job has its GPUs for itself; at home other programs may use them."""
        part = self._nodes[node].part
        on_gpus = self._seat.job and self._config.placement.device != "cpu"
        where = {"run": str(self._directory.path), "tmp": str(self._seat.scratch or tempfile.gettempdir())}
        room = {where.get(name, name): least for name, least in MIN_FREE_MIB.items()}
        return Wanted(gpus=part.gpus_used if on_gpus else 0, free_mib=room, canary=canary)

    def _unreachable(
        self, rendezvous: Rendezvous, reports: list[dict[str, Any]], stopped: Callable[[], bool]
    ) -> list[Failure]:
        """Each node has tried the next one; the node that was not reached is the one that is named."""
        if len(reports) == 1:
            return []
        listeners = [entry["listening"] for entry in reports]
        rendezvous.set(keys.LISTENERS, json.dumps(listeners))
        rendezvous.set(keys.reach(0), _reach_next(0, listeners))
        everyone = range(len(listeners))
        silent = self._await(lambda node: rendezvous.has(keys.reach(node)), stopped, "try the next node")
        if silent or stopped():
            return silent
        found = []
        for node in everyone:
            if problem := rendezvous.get(keys.reach(node)):
                following = (node + 1) % len(listeners)
                found.append(self._failure(following, f"{self._seat.names[node]} does not reach it: {problem}"))
        if len(found) == len(listeners):
            cause = f"no node reaches the next one: {'; '.join(failure.cause for failure in found)}"
            remedy = "name the network interface over which they do in the site file (interface)"
            return [Failure("run", self._config.name, Moment(), f"{cause}: {remedy}", 0)]
        return found

    def _await(self, is_here: Callable[[int], bool], stopped: Callable[[], bool], what: str) -> list[Failure]:
        """Nobody, or the nodes that were not heard of in time."""
        waiting = set(range(len(self._seat.names)))

        def all_here() -> bool:
            waiting.difference_update([node for node in waiting if is_here(node)])
            return not waiting or stopped()

        deadline_s = self._config.placement.start_timeout_s
        if wait_until(all_here, deadline_s):
            return []
        return [self._failure(node, f"its agent did not {what} within {deadline_s:.0f} s") for node in sorted(waiting)]

    def _failure(self, node: int, cause: str) -> Failure:
        return Failure("node", self._seat.names[node], Moment(), cause, 0)


def _in_words(nobodys: list[Mistake]) -> str:
    return "; ".join(map(str, nobodys))


def _await_value(pulse: Pulse, key: Key, leave: Callable[[], bool]) -> str | None:
    """The value of a key once it is there; None if it is time to leave."""
    while (value := pulse.value(key)) is None:
        if leave():
            return None
        time.sleep(0.05)
    return value


def _reach_next(node: int, listeners: list[tuple[str, int]]) -> str:
    host, port = listeners[(node + 1) % len(listeners)]
    return reaches(host, port, REACH_TIMEOUT_S) or ""
