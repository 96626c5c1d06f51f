"""The gate before a run: every node says how it is, and the leader lets the run begin only if all are fit.

    leader: canary ──► reports of all ──► who listens where ──► who reaches whom ──► open, or who is unfit and why
    others:   └─► probe, report               └─► connect to the next node ─┘

Followers read the store through their pulse, so that a leader that dies meanwhile does not hold them.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from common.waiting import wait_until
from core.config.layout import nodes
from core.config.schema import RunConfig
from core.processes import keys
from core.processes.keys import Key
from core.processes.rendezvous import Rendezvous
from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.moment import Moment
from core.run_dir.run_directory import RunDirectory
from hpc.node.complaints import complaints
from hpc.node.health import NodeReport, Wanted, probe_node, write_canary
from launchers.attempts.failure import Failure
from launchers.node.network import reaches
from launchers.node.ports import listen
from launchers.node.pulse import Pulse
from launchers.node.seat import Seat

WATCHED = (keys.GATE, keys.CANARY, keys.LISTENERS)
MIN_FREE_MIB = {"run": 1024, "/dev/shm": 32, "tmp": 256}
REACH_TIMEOUT_S = 10.0


class Gate:
    """One node's way through it."""

    def __init__(self, config: RunConfig, directory: RunDirectory, seat: Seat) -> None:
        self._config = config
        self._nodes = nodes(config)
        self._directory = directory
        self._seat = seat
        self._canary = AttemptFolder(directory.attempt(seat.attempt)).canary

    def pass_as_leader(self, rendezvous: Rendezvous, stopped: Callable[[], bool]) -> list[Failure]:
        """Judge all nodes; empty, and the gate open, if all are fit or a stop was asked meanwhile."""
        canary = write_canary(self._canary)
        rendezvous.set(keys.CANARY, canary)
        with closing(listen(self._seat.host, self._seat.ports)) as listener:
            rendezvous.set(keys.health(0), self._report(canary, listener.getsockname()))
            everyone = range(len(self._seat.names))
            unfit = self._await(rendezvous, [keys.health(node) for node in everyone], stopped, "report")
            if not unfit and not stopped():
                reports = [json.loads(rendezvous.get(keys.health(node)) or "") for node in everyone]
                unfit = self._unfit(reports, canary) or self._unreachable(rendezvous, reports, stopped)
        self._canary.unlink(missing_ok=True)
        if not unfit:
            rendezvous.set(keys.GATE, "open")
        return unfit

    def pass_as_follower(self, pulse: Pulse, leave: Callable[[], bool]) -> None:
        """Report, try the next node, and wait until the gate is open or `leave` says that there is no point."""
        node = self._seat.node
        if (canary := _await_value(pulse, keys.CANARY, leave)) is None:
            return
        with closing(listen(self._seat.host, self._seat.ports)) as listener:
            pulse.post(keys.health(node), self._report(canary, listener.getsockname()))
            if (listeners := _await_value(pulse, keys.LISTENERS, leave)) is None:
                return
            pulse.post(keys.reach(node), _reach_next(node, json.loads(listeners)))
            _await_value(pulse, keys.GATE, leave)

    def _report(self, canary: str, listening: tuple[str, int]) -> str:
        report = probe_node(self._wanted(self._seat.node, canary), self._canary)
        return json.dumps({"report": report.to_json(), "listening": listening})

    def _wanted(self, node: int, canary: str) -> Wanted:
        """Demands on a node. On a cluster a job has its GPUs for itself; at home other programs may use them."""
        part = self._nodes[node].part
        on_gpus = self._seat.job and self._config.placement.device != "cpu"
        where = {"run": str(self._directory.path), "tmp": str(self._seat.scratch or tempfile.gettempdir())}
        room = {where.get(name, name): least for name, least in MIN_FREE_MIB.items()}
        return Wanted(gpus=part.gpus_used if on_gpus else 0, free_mib=room, canary=canary)

    def _unfit(self, reports: list[dict[str, Any]], canary: str) -> list[Failure]:
        found = []
        for node, entry in enumerate(reports):
            report = NodeReport.from_json(entry["report"])
            # its clock was read some time before all reports were here; what counts is a difference of minutes
            if wrong := complaints(report, self._wanted(node, canary), time.time()):
                found.append(self._failure(node, "; ".join(map(str, wrong))))
        return found

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
        silent = self._await(rendezvous, [keys.reach(node) for node in everyone], stopped, "try the next node")
        if silent or stopped():
            return silent
        found = []
        for node in everyone:
            if problem := rendezvous.get(keys.reach(node)):
                following = (node + 1) % len(listeners)
                found.append(self._failure(following, f"{self._seat.names[node]} does not reach it: {problem}"))
        return found

    def _await(
        self, rendezvous: Rendezvous, wanted: list[Key], stopped: Callable[[], bool], what: str
    ) -> list[Failure]:
        """Nobody, or the nodes whose key did not appear in time."""
        waiting = dict(enumerate(wanted))

        def all_here() -> bool:
            for node in [node for node, key in waiting.items() if rendezvous.has(key)]:
                del waiting[node]
            return not waiting or stopped()

        deadline_s = self._config.placement.start_timeout_s
        if wait_until(all_here, deadline_s):
            return []
        return [self._failure(node, f"its agent did not {what} within {deadline_s:.0f} s") for node in waiting]

    def _failure(self, node: int, cause: str) -> Failure:
        return Failure("node", self._seat.names[node], Moment(), cause, 0)


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
