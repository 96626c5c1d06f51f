"""What runs on a node in one attempt: its servers and its trainer ranks, which begin, are watched and end together."""

from __future__ import annotations

import logging
import subprocess
from functools import partial
from pathlib import Path

from core.config.layout import nodes
from core.config.schema import RunConfig
from core.processes.children import Child, kill_descendants, stop_all
from core.processes.keys import Key
from core.run_dir.run_directory import RunDirectory
from launchers.attempts.failure import Failure
from launchers.node.engine_slot import engine_slots
from launchers.node.holdings import Holdings
from launchers.node.pulse import Pulse
from launchers.node.rewards_slot import RewardsSlot
from launchers.node.seat import Seat
from launchers.node.slot import ServerSlot
from launchers.node.trainer_group import TrainerGroup

STOP_GRACE_S = 2.0  # trainer ranks have nothing to say goodbye to; Slurm may give as little as 3 s in all

log = logging.getLogger("agent")


class NodeProcesses:
    """Children of a node's agent, and the shared memory that they hold."""

    def __init__(self, config: RunConfig, directory: RunDirectory, seat: Seat) -> None:
        """Reserve the places; nothing is started."""
        node = nodes(config)[seat.node]
        self._slots: list[ServerSlot] = engine_slots(config, directory.attempt(seat.attempt), seat, node)
        if node.role == "rewards":
            self._slots.append(RewardsSlot(config, directory, seat, node))
        self._trainers = TrainerGroup(config, directory, seat, node) if node.role == "trainers" else None
        self._holdings: Holdings  # from `note_in` on

    @property
    def watched(self) -> set[Key]:
        """The keys of the store that servers depend on."""
        return {key for slot in self._slots for key in slot.watched}

    @property
    def trainers_done(self) -> bool:
        """Whether the node has trainer ranks, and all of them have ended well."""
        return self._trainers is not None and self._trainers.exit_code() == 0

    def note_in(self, temporary: Path) -> None:
        """Note from now on in the agent's own folder what shared memory they hold."""
        self._holdings = Holdings(temporary)

    def start(self, pulse: Pulse, store: str) -> None:
        """Start all servers and trainer ranks.

        Args:
            store: host:port of the rendezvous store.
        """
        for slot in self._slots:
            slot.begin(pulse)
        if self._trainers is not None:
            self._trainers.start(store)

    def keep_running(self, pulse: Pulse) -> Failure | None:
        """Restart servers that died; the failure of trainer ranks, or of a server that died too often."""
        if self._trainers is not None and self._trainers.exit_code() not in (None, 0):
            return self._trainers.failure(self._trainers.exit_code() or 0, pulse)
        found = (slot.keep_running(pulse) for slot in self._slots)
        return next((failure for failure in found if failure is not None), None)

    def look_after_shared_memory(self) -> None:
        """Note what is held, and remove what a server held that has ended."""
        servers = self._servers()
        children = [*self._ranks(), *servers]
        for server in servers:
            if server.exit_code() is not None:
                self._holdings.remove_of(server, [child for child in children if child is not server])
        self._holdings.look(children)

    def end(self) -> None:
        """End all children and take away the shared memory that they had no time to take away themselves."""
        ranks, servers = self._ranks(), self._servers()
        self._holdings.look([*ranks, *servers], interval_s=0.0)
        for end in (partial(stop_all, ranks, STOP_GRACE_S), partial(stop_all, servers, 0.0), kill_descendants):
            try:
                end()
            except (RuntimeError, subprocess.TimeoutExpired) as error:  # the kernel ends them with this one
                log.error("not ended: %s", error)
        for slot in self._slots:
            slot.close()
        self._holdings.remove_all()

    def _servers(self) -> list[Child]:
        return [slot.child for slot in self._slots if slot.child]

    def _ranks(self) -> list[Child]:
        return [self._trainers.child] if self._trainers is not None and self._trainers.child else []
