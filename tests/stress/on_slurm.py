"""A run on a Slurm cluster of the tests, which the case has for itself."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from common.waiting import wait_until
from tests.slurm_cluster import Cluster, ClusterError
from tests.stress.case import Case, Fault
from tests.stress.disk import Disk
from tests.stress.judge import left_in
from tests.stress.local import disturb_disk, stop_for
from tests.stress.runs import write
from tests.support.slurm_runs import attempts, processes_of
from tests.support.tiny_runs import EBBTIDE

ENDED = ("CANCELLED", "FAILED", "COMPLETED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY")
SURE_S = 4.0  # a job that goes back into the queue looks ended for a moment
PROGRAMS = {
    "agent": r"^\S*python\S* .*submitit_main",
    "rank": r"launchers\.rank\.trainer ",
    "engine": "ebbtide_engine_server",
    "engine child": "sglang::",
    "torchrun": r"launchers\.rank\.torchrun",
    "rewards": r"launchers\.rank\.reward_server",
}


class SlurmWorld:
    """One run directory on a disk of its own, which all nodes see."""

    def __init__(self, cluster: Cluster, disk: Disk, folder: Path, case: Case) -> None:
        """Prepare it.

        Args:
            disk: mounted before the cluster was started, as nodes see no later mounts.
        """
        self.guilty: list[str] = []
        self.told = ""
        self._cluster, self._chance = cluster, random.Random(case.seed)
        self._disk = disk
        self.run_dir = disk.folder / str(case.seed)
        self._scratch = folder / "scratch"
        self._scratch.mkdir()
        self._run_file = write(folder, case.layout, case.interval, self._scratch)
        self._said = ""
        self._ended_since: float | None = None
        self._release = False  # a controller that was killed may come back with an older state, and hold the job

    def begin(self) -> None:
        known = (self.run_dir / "run.yaml").exists()
        words = [str(self._run_file), "--run-dir", str(self.run_dir)] if not known else ["--resume", str(self.run_dir)]
        self._said = self._ebbtide("submit", *words, "--site", str(self._run_file.parent / "site.yaml"))
        self._ended_since = None

    def has_ended(self) -> bool:
        if self._release and (job := self._job()) and self._job_state("%T %r").endswith("held"):
            self._slurm("scontrol", "release", job)  # by hand, as `ebbtide status` says
        if self._job_state() not in ENDED:
            self._ended_since = None
            return False
        self._ended_since = self._ended_since or time.monotonic()
        if time.monotonic() < self._ended_since + SURE_S:
            return False
        wait_until(lambda: not processes_of(self._cluster), 20.0)
        return True

    def act(self, fault: Fault) -> bool:
        job = self._job()
        if job is None:
            return False
        match fault.kind:
            case "kill" | "stop":
                return self._signal(fault)
            case "scancel":
                self._slurm("scancel", job)
            case "warn":
                self._slurm("scancel", "--signal=USR2", job)
            case "cancel":
                self._said = self._ebbtide("cancel", str(self.run_dir))
            case "save and end":
                if self._job_state() != "RUNNING" or not attempts(self.run_dir):
                    return False
                self._said = self._ebbtide("stop", str(self.run_dir))
            case "requeue":
                if self._job_state() != "RUNNING":
                    return False
                self._slurm("scontrol", "requeue", job)
            case "controller":
                self._cluster.command("stop-controller")
                time.sleep(fault.for_s)
                self._cluster.command("start-controller")
                wait_until(lambda: self._job_state() != "", 30.0)
                self._release = True
            case "lose":
                return self._lose(fault)
            case "shorter" | "longer":
                return self._change_limit(fault, job)
            case _:
                return disturb_disk(self._disk, fault, self.run_dir, self._chance)
        return True

    def mend(self) -> None:
        self._disk.mend()

    def said(self) -> str:
        return self._said + self._ebbtide("status", str(self.run_dir)) + self._ebbtide("logs", str(self.run_dir))

    def left(self) -> Iterator[str]:
        if found := processes_of(self._cluster):
            yield f"processes: {found}"
        last = attempts(self.run_dir)[-1].nodes
        for node in last:
            if names := self._cluster.on_node(node, "ls", "/dev/shm").split():
                yield f"/dev/shm of {node}: {names}"
        if names := left_in(self._scratch, last):
            yield f"scratch: {names}"

    def end(self) -> None:
        self._slurm("scancel", *(self._cluster.live_jobs() or ["0"]))

    def close(self) -> None:
        """Everything as before, for the next case."""
        self.mend()
        self._cluster.reset()
        wait_until(lambda: not processes_of(self._cluster), 20.0)
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def _signal(self, fault: Fault) -> bool:
        found = self._nodes()
        if not found:
            return False
        node = found[fault.node % len(found)]
        lines = self._cluster.processes(node)
        pids = sorted(pid for pid, line in lines.items() if re.search(PROGRAMS[fault.target], line))
        if not pids:
            return False
        pid = self._chance.choice(pids)
        self.guilty.append(node)
        if fault.kind == "kill":
            os.kill(pid, 9)
        else:
            stop_for(pid, fault.for_s)
        return True

    def _lose(self, fault: Fault) -> bool:
        found = self._nodes()
        if not found or self._job_state() != "RUNNING":
            return False
        node = found[fault.node % len(found)]
        self.guilty.append(node)
        self._cluster.kill_node(node)
        return True

    def _change_limit(self, fault: Fault, job: str) -> bool:
        """To the next whole minute from now, or to half an hour."""
        if self._job_state() != "RUNNING":
            return False
        words = self._cluster.run("squeue", "-h", "-j", job, "-o", "%M").split()
        minutes, _, seconds = words[0].rpartition(":")
        limit = int(minutes.rpartition(":")[2]) + 1 + (int(seconds) > 30) if fault.kind == "shorter" else 30
        self._slurm("scontrol", "update", f"JobId={job}", f"TimeLimit={limit}")
        return True

    def _nodes(self) -> tuple[str, ...]:
        found = attempts(self.run_dir)
        return found[-1].nodes if found and found[-1].how is None else ()

    def _job(self) -> str | None:
        path = self.run_dir / "slurm" / "job.json"
        return str(json.loads(path.read_text())["job_id"]) if path.exists() else None

    def _job_state(self, what: str = "%T") -> str:
        """Slurm's word for it, or what else squeue knows; empty: there is none, or nobody answers."""
        if (job := self._job()) is None:
            return ""
        try:
            return self._cluster.run("squeue", "-h", "-t", "all", "-j", job, "-o", what).split("\n")[0]
        except (ClusterError, subprocess.TimeoutExpired):
            return ""

    def _slurm(self, *command: str) -> None:
        try:
            self._cluster.run(*command)
        except ClusterError as error:  # the job may have ended meanwhile
            self._said += str(error)

    def _ebbtide(self, *words: str) -> str:
        env = {**os.environ, **self._cluster.environment, "PYTHONPATH": "", "COLUMNS": "200"}
        done = subprocess.run([EBBTIDE, *words], capture_output=True, text=True, timeout=400, env=env)
        return done.stdout + done.stderr
