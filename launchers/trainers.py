"""The trainer ranks of a node, behind one torchrun elastic agent."""

from __future__ import annotations

import json
import os
import sys

from core.config.schema import RunConfig
from core.device import num_threads
from core.phase import phase_key
from core.rendezvous import Rendezvous
from core.run_directory import RunDirectory
from launchers.children import Child, log_tail
from launchers.failure import Failure, describe_exit, first_cause


class TrainerGroup:
    """Starts them, knows whether they ended, and says which one failed first."""

    def __init__(
        self, config: RunConfig, directory: RunDirectory, attempt: int, node: int, rendezvous: Rendezvous
    ) -> None:
        self._config = config
        self._directory = directory
        self._attempt = attempt
        self._node = node
        self._rendezvous = rendezvous
        self._folder = directory.attempt(attempt)
        self._report = self._folder / f"torchrun-{node}.json"
        self.child: Child | None = None

    def start(self) -> None:
        """Start torchrun; it starts the ranks."""
        placement = self._config.placement
        threads = num_threads(placement.trainers_per_node)
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        command = [
            *(sys.executable, "-m", "launchers.torchrun"),
            *("--nnodes", str(placement.num_nodes), "--nproc", str(placement.trainers_per_node)),
            *("--endpoint", "127.0.0.1:0", "--run-id", f"{self._config.name}-{self._attempt}"),
            *("--join-timeout-s", str(int(placement.start_timeout_s)), "--report", str(self._report), "--"),
            *("--run-dir", str(self._directory.path), "--attempt", str(self._attempt), "--node", str(self._node)),
            *("--store", str(self._rendezvous.address)),
        ]
        self.child = Child("torchrun", command, env, self._folder / f"torchrun-{self._node}.log")

    def exit_code(self) -> int | None:
        """None while the ranks run."""
        return self.child.exit_code() if self.child else None

    def failure(self, exit_code: int) -> Failure:
        """Of all ranks' own records and what torchrun saw, the one that explains the others."""
        own = {path.stem: Failure.read(path) for path in sorted(self._folder.glob("failures/trainer-*.json"))}
        seen = json.loads(self._report.read_text()) if self._report.exists() else []
        records = list(own.values())
        records += [self._seen(**entry) for entry in seen if f"trainer-{entry['rank']}" not in own]
        return first_cause(records) if records else self._torchrun_itself(exit_code)

    def _seen(self, rank: int, pid: int, exit_code: int, time: float) -> Failure:
        """A rank that left no record of its own: it was killed."""
        log = self._folder / f"trainer-{rank}.log"
        return Failure(
            *("trainer", str(rank), self._phase(rank), describe_exit(exit_code), pid),
            exit_code=exit_code,
            detail=log_tail(log),
            log=str(log),
            time=time,
        )

    def _torchrun_itself(self, exit_code: int) -> Failure:
        log = self._folder / f"torchrun-{self._node}.log"
        pid = self.child.pid if self.child else 0
        cause = f"torchrun {describe_exit(exit_code)}"
        return Failure(
            *("trainer", "torchrun", self._phase(0), cause, pid),
            exit_code=exit_code,
            detail=log_tail(log),
            log=str(log),
        )

    def _phase(self, rank: int) -> str:
        return self._rendezvous.get(phase_key(rank)) or "start"
