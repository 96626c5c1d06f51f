"""What one Slurm task of a run does: it is the node agent of its node.

    srun … python -m launchers.node.slurm_task --run-dir RUN     from the job script; Submitit calls `SlurmTask` instead

The task of the first node leads: it begins the attempt, serves the store, and tells the others where through a file in
the run directory, which all nodes see. When the attempt has ended it writes the verdict that the job script acts on.

    RUN/slurm/JOB/RESTART/meeting.json   {"attempt": 2, "store": "10.1.2.3:20417"}, or {"complete": true}
    RUN/slurm/JOB/RESTART/verdict        requeue or end; then the nodes to leave out
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import socket
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from common.files import write_atomically
from common.waiting import wait_until
from core.config import load_run_file
from core.config.layout import nodes
from core.config.schema import RunConfig
from core.loop.manifest import is_complete
from core.processes.die_with_parent import adopt_orphans
from core.processes.rendezvous import Address
from core.run_dir.attempt_folder import AttemptFolder, StartFolder
from core.run_dir.run_directory import RunDirectory
from hpc.slurm.allocation import Allocation
from hpc.slurm.job_end import ask_job_end
from launchers.attempts.attempt import OpenAttempt, note_complete, open_attempt
from launchers.attempts.history import fold_attempts, read_ledger
from launchers.attempts.job_record import read_record
from launchers.attempts.judgement import leave_agent_record
from launchers.attempts.kept_site import kept_site
from launchers.attempts.outcome import Outcome, write_outcome
from launchers.attempts.verdict import Verdict, judge
from launchers.node import early
from launchers.node.agent import run_agent
from launchers.node.log_setup import start_logging
from launchers.node.network import leader_address, member_address
from launchers.node.seat import Seat

LOCK_WAIT_S = 120.0  # a file server may hold a dead node's lock for as long as its lease
EARLY_S = 75.0  # Slurm sends its warning up to a minute early
PAUSED = ("timeout", "preempted")

log = logging.getLogger("task")


class TaskError(RuntimeError):
    """This task cannot take part in the run."""


@dataclass(frozen=True)
class SlurmTask:
    """The callable that Submitit runs in every task. Returns what `run_task` does; raises `TaskError` on failure.

    A run that was paused leaves the process with exit code 0 and without a result: it goes on in the next attempt.
    """

    run_dir: Path

    def __call__(self) -> dict[str, Any]:
        result = run_task(self.run_dir)
        if result["outcome"] in PAUSED:
            sys.exit(0)
        if result["outcome"] != "complete":
            raise TaskError(f"{result['outcome']}: {result['cause']}")
        return result


def run_task(run_dir: Path) -> dict[str, Any]:
    """Run this node's part of an attempt, to its end.

    Returns:
        role, host, procid, attempt, outcome, cause and steps_done of this task.
    Raises:
        TaskError: no task of an allocation that fits the run, or the leader did not call in time.
    """
    adopt_orphans()
    task = _Task(RunDirectory(run_dir.resolve()), _allocation())
    return task.lead() if task.number == 0 else task.follow()


class _Task:
    def __init__(self, directory: RunDirectory, allocation: Allocation) -> None:
        assert allocation.procid is not None
        self.directory = directory
        self.allocation = allocation
        self.number = allocation.procid
        self.config: RunConfig = load_run_file(directory.run_file)
        self.site = kept_site(directory)
        self.start = _meeting_place(directory, allocation)
        self._check_size()

    def lead(self) -> dict[str, Any]:
        """Begin the attempt, call the others, run, and leave the verdict."""
        if is_complete(self.directory, self.config):
            note_complete(self.directory, LOCK_WAIT_S)
            self._call({"complete": True})
            self._write_verdict(Verdict(False))
            return self._result(0, Outcome("complete"))
        names, job, restart = self.allocation.nodes, self.allocation.job_id, self.allocation.restart_count
        with open_attempt(self.directory, names, job, restart, LOCK_WAIT_S, early.note) as attempt:
            start_logging(self.config.logging, AttemptFolder(attempt.folder).agent_log(0))
            seat = self._seat(attempt.number, attempt.key, leader_address(names, self.site.interface), None)
            outcome = run_agent(
                self.directory,
                seat,
                self._pause_reason,
                call=lambda store: self._call({"attempt": attempt.number, "store": str(store)}),
                conclude=partial(self._conclude, attempt),
            )
        return self._result(attempt.number, outcome)

    def follow(self) -> dict[str, Any]:
        """Wait for the leader's call, then run."""
        meeting = self._await_call()
        if meeting.get("complete"):
            return self._result(0, Outcome("complete"))
        number, store = meeting["attempt"], Address.parse(meeting["store"])
        folder = self.directory.attempt(number)
        start_logging(self.config.logging, AttemptFolder(folder).agent_log(self.number))
        try:
            host = member_address(store.host, self.site.interface)
            seat = self._seat(number, AttemptFolder(folder).key.read_text(), host, store)
        except Exception as error:
            leave_agent_record(folder, self.number, error)
            raise
        return self._result(number, run_agent(self.directory, seat, self._pause_reason))

    def _seat(self, attempt: int, key: str, host: str, store: Address | None) -> Seat:
        return Seat(
            attempt=attempt,
            node=self.number,
            names=self.allocation.nodes,
            host=host,
            store=store,
            key=key,
            ports=self.site.ports,
            ends_at=self.allocation.job_end,
            job=self.allocation.job_id,
            scratch=self.site.scratch,
        )

    def _conclude(self, attempt: OpenAttempt, outcome: Outcome) -> None:
        write_outcome(attempt.folder, outcome)
        attempt.end(outcome, outcome.exit_code)
        self._write_verdict(self._verdict())

    def _pause_reason(self) -> str:
        """Why Slurm sends its warning: the time limit is near, or somebody else wants the nodes.

        The leader asks for the limit, which may have been changed; all nodes at once would be many.
        """
        end = self.allocation.job_end
        if self.number == 0:
            end = ask_job_end(self.allocation.job_id) or end
        near = end is not None and end - time.time() < self.config.slurm.signal_s + EARLY_S
        return "timeout" if near else "preempted"

    def _verdict(self) -> Verdict:
        attempts = fold_attempts(read_ledger(self.directory.ledger))
        verdict = judge(attempts, self.config.slurm, self.site.requeue, self._following())
        if verdict.problem:
            log.error("not requeued: %s", verdict.problem)
        return verdict

    def _following(self) -> tuple[str, ...]:
        """The jobs after this one in a chain, each by its components, as scontrol names them."""
        record, size = read_record(self.directory), self.allocation.het_size
        jobs = record.after(self.allocation.job_id) if record else ()
        return jobs if size == 1 else tuple(f"{job}+{number}" for job in jobs for number in range(size))

    def _write_verdict(self, verdict: Verdict) -> None:
        write_atomically(self.start.verdict, verdict.text)

    def _call(self, meeting: dict[str, Any]) -> None:
        write_atomically(self.start.meeting, json.dumps(meeting))

    def _await_call(self) -> dict[str, Any]:
        path = self.start.meeting
        deadline_s = self.config.placement.start_timeout_s + LOCK_WAIT_S
        # listing the folder makes a network file system look again, where a mere stat may answer from its cache
        if not wait_until(lambda: path.name in os.listdir(self.start.path), deadline_s):
            raise TaskError(
                f"the first node, {self.allocation.nodes[0]}, did not call within {deadline_s:.0f} s: no {path}. "
                "Is the run directory on a file system that all nodes share?"
            )
        meeting: dict[str, Any] = json.loads(path.read_text())
        return meeting

    def _result(self, attempt: int, outcome: Outcome) -> dict[str, Any]:
        entries = fold_attempts(read_ledger(self.directory.ledger))
        return {
            "role": nodes(self.config)[self.number].role,
            "host": socket.gethostname(),
            "procid": self.number,
            "attempt": attempt,
            "outcome": outcome.how,
            "cause": outcome.cause,
            "steps_done": sum(entry.steps_done or 0 for entry in entries),
        }

    def _check_size(self) -> None:
        wanted, found = len(nodes(self.config)), self.allocation.num_tasks
        if wanted != found or len(self.allocation.nodes) != found:
            raise TaskError(
                f"job {self.allocation.job_id} runs {found} tasks on {len(self.allocation.nodes)} nodes, the run file "
                f"describes {wanted} nodes with one task each: use the script that `ebbtide sbatch` prints, or "
                f"`srun --ntasks-per-node=1` on {wanted} nodes"
            )


def _allocation() -> Allocation:
    found = Allocation.from_environ(os.environ)
    if found is None or not found.in_step:
        raise TaskError("no Slurm task here: launchers.node.slurm_task is started by srun, inside a job")
    return found


def _meeting_place(directory: RunDirectory, allocation: Allocation) -> StartFolder:
    """A folder of this start of the job, the same for all tasks; whoever calls srun may choose it."""
    default = directory.job_start(allocation.job_id, allocation.restart_count)
    folder = Path(os.environ.get("EBBTIDE_SLURM_DIR") or default)
    folder.mkdir(parents=True, exist_ok=True)
    return StartFolder(folder)


def main() -> None:
    """One task: exit code 0 complete or paused, 1 failed, 143 stopped."""
    parser = argparse.ArgumentParser(prog="launchers.node.slurm_task", description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    result = run_task(parser.parse_args().run_dir)
    print(json.dumps(result), flush=True)
    sys.exit(Outcome(result["outcome"]).exit_code)
