"""Where a long run is, and how it is interrupted there: Ctrl-C of a command, or `scontrol requeue` of a Slurm job."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import psutil

from common.waiting import wait_until
from tests.slurm_cluster import Cluster, Settings, why_not
from tests.stress.on_slurm import ENDED, PROGRAMS, SURE_S
from tests.support.slurm_runs import submit
from tests.support.tiny_runs import descendants, start_ebbtide

MOMENT_S = 900.0  # for what a run does by itself, with an engine that starts again
CLUSTER_LIFETIME_S = 3600.0


class LongRun(Protocol):
    """A run under way. Its directory is `out` beside the run file."""

    interruption: str  # what `interrupt` does, in words

    def begin(self) -> None:
        """Start it; returns before its first step."""
        ...

    def interrupt(self) -> None:
        """Break the run off, and have it go on."""
        ...

    def has_ended(self) -> bool:
        """Whether nothing of it runs, or will by itself."""
        ...

    def engine(self) -> int:
        """Process of the engine, as this machine counts; -1: there is none now."""
        ...

    def finish(self, timeout_s: float) -> int:
        """Wait until it is done; the exit code."""
        ...

    def end(self) -> None:
        """Stop what is left of it."""
        ...


class Command:
    """A run at a terminal, interrupted by Ctrl-C and resumed."""

    interruption = "SIGINT"

    def __init__(self, run_file: Path) -> None:
        self._run_file, self._run_dir = run_file, run_file.parent / "out"
        self._log = run_file.parent / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        self._process = start_ebbtide("run", str(self._run_file), "--run-dir", str(self._run_dir), log=self._log)

    def interrupt(self) -> None:
        self._running.send_signal(signal.SIGINT)
        self._running.wait(MOMENT_S)
        self._process = start_ebbtide("resume", str(self._run_dir), log=self._log)

    def has_ended(self) -> bool:
        return self._running.poll() is not None

    def engine(self) -> int:
        """The one that was started last, as the agent's log has it."""
        attempt = max(int(path.name) for path in (self._run_dir / "attempts").glob("[0-9]*"))
        log = self._run_dir / "attempts" / str(attempt) / "agent-0.log"
        lines = log.read_text().splitlines() if log.exists() else []
        started = [line for line in lines if "engine=node0-engine0 incarnation=" in line and "pid=" in line]
        pid = int(started[-1].partition("pid=")[2].split()[0]) if started else -1
        return pid if psutil.pid_exists(pid) else -1

    def finish(self, timeout_s: float) -> int:
        return self._running.wait(timeout_s)

    def end(self) -> None:
        if self._process is not None and not self.has_ended():
            self._process.terminate()
            self._process.wait(120)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process


class Job:
    """A run that was submitted to a cluster of one node, and is requeued there."""

    interruption = "scontrol requeue"

    def __init__(self, run_file: Path, cluster: Cluster) -> None:
        self._run_file, self._cluster = run_file, cluster
        self._job = ""

    def begin(self) -> None:
        self._job = submit(self._run_file, self._run_file.parent / "out")

    def interrupt(self) -> None:
        """Slurm ends all processes amid the step, and starts the job again."""
        self._cluster.run("scontrol", "requeue", self._job)

    def has_ended(self) -> bool:
        """Whether it has for good: a job that goes back into the queue looks ended for a moment."""
        return self._state() in ENDED and not wait_until(lambda: self._state() not in ENDED, SURE_S)

    def engine(self) -> int:
        lines = self._cluster.processes(self._cluster.nodes[0])
        return min((pid for pid, line in lines.items() if re.search(PROGRAMS["engine"], line)), default=-1)

    def finish(self, timeout_s: float) -> int:
        assert wait_until(self.has_ended, timeout_s), f"the job is {self._state()} after {timeout_s:.0f} s"
        return 0 if self._state() == "COMPLETED" else 1

    def end(self) -> None:
        if self._job and self._state() not in ENDED:
            self._cluster.run("scancel", self._job)

    def _state(self) -> str:
        return self._cluster.run("squeue", "-h", "-t", "all", "-j", self._job, "-o", "%T").split("\n")[0]


@contextmanager
def place_of(run_file: Path, slurm: bool) -> Iterator[LongRun]:
    """A run of this file, here or on a cluster of its own; nothing of either is left afterwards."""
    if not slurm:
        yield from _until_it_ends(Command(run_file))
        return
    if (reason := why_not()) is not None:
        raise SystemExit(reason)
    cluster = Cluster.start(Settings(folder="", num_nodes=1), os.getpid(), CLUSTER_LIFETIME_S)
    os.environ.update(cluster.environment)
    try:
        yield from _until_it_ends(Job(run_file, cluster))
    finally:
        cluster.stop()


def _until_it_ends(run: LongRun) -> Iterator[LongRun]:
    try:
        yield run
    finally:
        run.end()


def kill_engine(run: LongRun) -> None:
    """End the engine with all that it has started; one that is not there is waited for."""
    assert wait_until(lambda: run.engine() > 0, MOMENT_S), "no engine came back"
    with suppress(psutil.NoSuchProcess):
        for process in descendants([run.engine()]):
            process.kill()
