"""The trainer ranks of a node, behind one torchrun elastic agent."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace

from core.config.layout import Node
from core.config.schema import RunConfig
from core.processes.children import Child
from core.processes.device import num_threads, thread_environment
from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.moment import Moment
from core.run_dir.run_directory import RunDirectory
from launchers.attempts.failure import Failure, describe_exit, first_cause, from_child, from_log
from launchers.node.command_words import words
from launchers.node.gpus import trainer_environment
from launchers.node.network import collective_environment
from launchers.node.pulse import Pulse
from launchers.node.seat import Seat


class TrainerGroup:
    """Starts them, knows whether they ended, and says which one failed first."""

    def __init__(self, config: RunConfig, directory: RunDirectory, seat: Seat, node: Node) -> None:
        self._config = config
        self._directory = directory
        self._seat = seat
        self._node = node
        self._folder = AttemptFolder(directory.attempt(seat.attempt))
        self._report = self._folder.torchrun_report(seat.node)
        self.child: Child | None = None

    def start(self, store: str) -> None:
        """Start torchrun; it starts the ranks.

        Args:
            store: host:port of the rendezvous store.
        """
        placement, node = self._config.placement, self._seat.node
        torchrun = {
            "--store": store,
            "--report": self._report,
            "--nnodes": placement.num_nodes,
            "--node": node,
            "--nproc": placement.trainers_per_node,
        }
        rank = {
            "--run-dir": self._directory.path,
            "--attempt": self._seat.attempt,
            "--node": node,
            "--store": store,
            "--host": self._seat.host,
            "--ends-at": self._seat.ends_at,
        }
        command = [sys.executable, "-m", "launchers.rank.torchrun", *words(torchrun), "--", *words(rank)]
        self.child = Child("torchrun", command, self._environment(), self._folder.torchrun_log(node))

    def exit_code(self) -> int | None:
        """None while the ranks run."""
        return self.child.exit_code() if self.child else None

    def failure(self, exit_code: int, pulse: Pulse) -> Failure:
        """The failure that explains the others, among the ranks' own records and what torchrun saw."""
        own = {path.stem: Failure.read(path) for path in self._folder.failures("trainer")}
        seen = json.loads(self._report.read_text()) if self._report.exists() else []
        records = list(own.values())
        records += [self._killed_rank(pulse.moment, **entry) for entry in seen if f"trainer-{entry['rank']}" not in own]
        return first_cause(records) if records else self._torchrun_failure(pulse.moment, exit_code)

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **trainer_environment(self._config),
            **collective_environment(self._seat.host),
            "EBBTIDE_API_KEY": self._seat.key,
            **thread_environment(num_threads(self._config.placement.trainers_per_node), os.environ),
            "TORCH_ELASTIC_WORKER_IDENTICAL": "1",  # the same number of ranks on every node: nothing to negotiate
        }

    def _killed_rank(self, at: Moment, rank: int, pid: int, exit_code: int, time: float) -> Failure:
        """A rank that left no record of its own: it was killed."""
        log = self._folder.trainer_log(rank)
        return replace(from_log("trainer", str(rank), at, pid, exit_code, log), time=time)

    def _torchrun_failure(self, at: Moment, exit_code: int) -> Failure:
        assert self.child is not None
        cause = f"torchrun {describe_exit(exit_code)}"
        return from_child("trainer", "torchrun", at, self.child, exit_code, cause)
