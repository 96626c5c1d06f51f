"""The folder of one attempt in a run directory, and the one where the tasks of a Slurm job meet. Paths only.

attempts/N/
    key                       the attempt's secret, while it runs
    canary                    written by the leader, for the other nodes to find: the folder is shared
    agent-NODE.log            torchrun-NODE.log   trainer-RANK.log   SERVER.INCARNATION.log
    torchrun-NODE.json        ranks that torchrun has seen die
    failures/ROLE-NAME.json   one record for each process that failed
    failure.json              the record that explains the others
    outcome.json              how the attempt ended
    provenance.json           with what it was made: versions, commit, command, machine, the user's files
    engines-NODE.txt          what the node's engines compute with, and why
    user_code/                copies of the user's code, as it was then
    waits                     what the gate waits for, while it does: something that all nodes complain of
    reserve                   room for what is written about the end, if the disk is full by then
    stop                      made by whoever wants the attempt to save and end

slurm/JOB/RESTART/
    meeting.json              where the leader serves the store
    verdict                   for the job script: requeue or end, and without which nodes
    task-NODE.log             what a task said before it had a log of its own
    srun.log                  the same of a whole srun within an allocation
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class AttemptFolder:
    """The paths of one attempt."""

    path: Path

    @classmethod
    def around(cls, record: Path) -> AttemptFolder:
        """The folder that a failure record lies in: the attempt's, or that of one process."""
        return cls(record.parent.parent if record.parent.name == "failures" else record.parent)

    @property
    def key(self) -> Path:
        """The file of the attempt's secret while it runs; only its user can read it."""
        return self.path / "key"

    @property
    def canary(self) -> Path:
        """The file by which nodes see that they share the folder."""
        return self.path / "canary"

    @property
    def failure(self) -> Path:
        """The record of the failure that ended the attempt."""
        return self.path / "failure.json"

    @property
    def outcome(self) -> Path:
        """The file that says how the attempt ended."""
        return self.path / "outcome.json"

    @property
    def provenance(self) -> Path:
        """The file that says with what the attempt was made."""
        return self.path / "provenance.json"

    @property
    def user_code(self) -> Path:
        """The folder with copies of the user's code; it is missing if the run file names none."""
        return self.path / "user_code"

    @property
    def waits(self) -> Path:
        """The file that says what the run waits for before it begins; missing while it does not wait."""
        return self.path / "waits"

    @property
    def reserve(self) -> Path:
        """The file that keeps room for the last words of the attempt; missing once they are written."""
        return self.path / "reserve"

    @property
    def made_for_its_time(self) -> tuple[Path, ...]:
        """The files that the attempt itself removes at its end, at the latest."""
        return self.key, self.canary, self.waits, self.reserve

    @property
    def stop(self) -> Path:
        """The file that is there once somebody wants the attempt to save and end."""
        return self.path / "stop"

    def failure_of(self, role: str, name: str) -> Path:
        """The record of one process that failed."""
        return self._failures / f"{role}-{name}.json"

    def failures(self, role: str = "*") -> list[Path]:
        """The records that there are of processes of a role; of all roles, if none is given."""
        return sorted(self._failures.glob(f"{role}-*.json"))

    def agent_log(self, node: int) -> Path:
        """The log of a node's agent."""
        return self.path / f"agent-{node}.log"

    def engines_note(self, node: int) -> Path:
        """What the engines of a node compute with."""
        return self.path / f"engines-{node}.txt"

    def engines_notes(self) -> list[Path]:
        """The notes of all nodes that have engines."""
        return sorted(self.path.glob("engines-*.txt"))

    def torchrun_log(self, node: int) -> Path:
        """The log of a node's torchrun."""
        return self.path / f"torchrun-{node}.log"

    def torchrun_report(self, node: int) -> Path:
        """The ranks that a node's torchrun has seen die."""
        return self.path / f"torchrun-{node}.json"

    def trainer_log(self, rank: int) -> Path:
        """The log of a trainer rank."""
        return self.path / f"trainer-{rank}.log"

    def server_log(self, name: str, incarnation: int) -> Path:
        """The log of one incarnation of an engine or a reward server."""
        return self.path / f"{name}.{incarnation}.log"

    def logs(self) -> Iterator[Path]:
        """All logs that there are."""
        return self.path.glob("*.log")

    @property
    def _failures(self) -> Path:
        return self.path / "failures"


@dataclass(frozen=True)
class StartFolder:
    """The paths of one start of a Slurm job."""

    path: Path

    @property
    def meeting(self) -> Path:
        """The file that tells the other tasks where the leader serves the store."""
        return self.path / "meeting.json"

    @property
    def verdict(self) -> Path:
        """The file that tells the job script whether to requeue, and without which nodes."""
        return self.path / "verdict"

    @property
    def srun_log(self) -> Path:
        """The log of an srun within an allocation."""
        return self.path / "srun.log"

    def task_logs(self) -> Iterator[Path]:
        """The logs of the tasks, as srun collects them."""
        return self.path.glob("task-*.log")
