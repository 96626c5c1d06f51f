"""Before anything starts: every node says how it is, and the leader lets the run begin only if all are fit."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable

from core.config.schema import RunConfig
from core.rendezvous import Rendezvous, wait_until
from core.run_directory import RunDirectory
from launchers.failure import Failure
from launchers.seat import Seat

GATE_KEY = "gate"

log = logging.getLogger("agent")


class Gate:
    """One node's view of it."""

    def __init__(self, config: RunConfig, directory: RunDirectory, seat: Seat, rendezvous: Rendezvous) -> None:
        self._config = config
        self._directory = directory
        self._seat = seat
        self._rendezvous = rendezvous

    def report(self) -> None:
        """Tell the leader how this node is."""
        self._rendezvous.set(_key(self._seat.node), json.dumps({"host": socket.gethostname()}))

    def judge(self, stopped: Callable[[], bool]) -> list[Failure]:
        """Leader: wait for all reports; empty and the gate open if all nodes are fit, else who is not, and why."""
        missing = self._await_reports(stopped)
        if not missing:
            self._rendezvous.set(GATE_KEY, "open")
        return missing

    def _await_reports(self, stopped: Callable[[], bool]) -> list[Failure]:
        waiting = set(range(len(self._seat.names)))

        def all_here() -> bool:
            for node in list(waiting):
                if self._rendezvous.get(_key(node)) is not None:
                    waiting.discard(node)
            return not waiting or stopped()

        deadline_s = self._config.placement.start_timeout_s
        if wait_until(all_here, deadline_s):
            return []
        cause = f"its agent did not report within {deadline_s:.0f} s (placement.start_timeout_s)"
        return [Failure("node", self._seat.names[node], "start", cause, 0) for node in sorted(waiting)]


def _key(node: int) -> str:
    return f"health/{node}"
