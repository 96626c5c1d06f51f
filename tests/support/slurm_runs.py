"""Whole runs of a tiny model on the test cluster: prepared, submitted, watched, and stopped at a chosen moment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from common.waiting import wait_until
from launchers.attempts.failure import Failure
from launchers.attempts.history import Attempt, fold_attempts, read_ledger
from tests.slurm_cluster import Cluster
from tests.support.tiny_runs import EBBTIDE, events, times_entered, write_run

QUICK = {"device": "cpu", "silence_timeout_s": 8, "start_timeout_s": 240, "engine_max_running_requests": 16}
HOLDING_DATA = '''
"""The rows, and a hook: a trainer rank that enters the phase named in the file `hold` stays there while it says so."""

import json
import time
from contextlib import contextmanager
from pathlib import Path

from core.loop.phases import Phases

HERE = Path(__file__).parent
enter = Phases.__call__


@contextmanager
def held(self, name, step):
    with enter(self, name, step):
        hold = HERE / "hold"
        while hold.exists() and hold.read_text() == f"{name} step={step}":
            time.sleep(0.05)
        yield


Phases.__call__ = held


def rows():
    return [json.loads(line) for line in (HERE / "data.jsonl").read_text().splitlines()]
'''


def prepare(folder: Path, num_nodes: int = 1, **sections: Mapping[str, Any]) -> Path:
    """A run file for the cluster: CPU path, short deadlines, checkpoint after every step."""
    placement = {**QUICK, "num_nodes": num_nodes, **sections.pop("placement", {})}
    slurm = {"time": "10", "signal_s": 30, **sections.pop("slurm", {})}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "site.yaml").write_text(yaml.safe_dump({"shared_filesystems": [str(folder.parent)]}))
    return write_run(folder, placement=placement, slurm=slurm, **sections)


def hold_phases(run_file: Path) -> None:
    """Make the run stop in phases on demand (`hold`), by the data function that every trainer rank imports."""
    folder = run_file.parent
    (folder / "rows.py").write_text(HOLDING_DATA)
    run = yaml.safe_load(run_file.read_text())
    run["data"] = {"source": "python", "path": "rows.py:rows", "max_prompt_tokens": 64}
    run_file.write_text(yaml.safe_dump(run))


def hold(run_file: Path, phase: str | None) -> None:
    """Stop in a phase such as "update step=1"; None: go on."""
    path = run_file.parent / "hold"
    path.unlink(missing_ok=True)
    if phase is not None:
        path.write_text(phase)


def submit(run_file: Path, run_dir: Path, *options: str) -> str:
    """`ebbtide submit`; the job's id."""
    run("submit", str(run_file), "--run-dir", str(run_dir), *site_of(run_file), *options)
    return str(json.loads((run_dir / "slurm" / "job.json").read_text())["job_id"])


def site_of(run_file: Path) -> tuple[str, str]:
    """The option that names the site file which `prepare` made."""
    return ("--site", str(run_file.parent / "site.yaml"))


def run(*arguments: str, timeout_s: float = 120, expect: int = 0) -> str:
    """An `ebbtide` command to its end; what it printed."""
    env = {**os.environ, "PYTHONPATH": "", "COLUMNS": "200"}
    done = subprocess.run([EBBTIDE, *arguments], capture_output=True, text=True, timeout=timeout_s, env=env)
    assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def ended(run_dir: Path) -> bool:
    """Whether all steps are done."""
    return bool(events(run_dir, "end"))


def wait_for(reached: Callable[[], bool], deadline_s: float, run_dir: Path) -> None:
    """Until it is so; what the run left behind if it takes too long."""
    assert wait_until(reached, deadline_s), tell(run_dir)


def complete(cluster: Cluster, job: str, run_dir: Path, deadline_s: float = 180) -> None:
    """Until all steps are done and Slurm says that the job has ended well."""
    wait_for(lambda: ended(run_dir), deadline_s, run_dir)
    try:
        cluster.wait_for_state(job, ["COMPLETED"])
    except TimeoutError as error:
        raise AssertionError(f"{error}\n{tell(run_dir)}") from error


def wait_for_phase(run_dir: Path, phase: str, deadline_s: float = 180, after: int = 0) -> None:
    """Until the run has entered a phase, having entered it `after` times before."""
    wait_for(lambda: times_entered(run_dir, phase) > after, deadline_s, run_dir)


def attempts(run_dir: Path) -> tuple[Attempt, ...]:
    """From the ledger."""
    return fold_attempts(read_ledger(run_dir / "ledger.jsonl"))


def failure(run_dir: Path, attempt: int) -> Failure:
    """The record of an attempt."""
    return Failure.read(run_dir / "attempts" / str(attempt) / "failure.json")


def processes_of(cluster: Cluster, nodes: tuple[str, ...] | None = None) -> dict[str, list[str]]:
    """Command lines of everything that runs on the nodes and is no part of Slurm."""
    found = {node: list(cluster.processes(node).values()) for node in nodes or cluster.nodes}
    return {node: lines for node, lines in found.items() if lines}


def pids(cluster: Cluster, node: str, text: str) -> list[int]:
    """Processes of a node whose command line contains a text."""
    return sorted(pid for pid, line in cluster.processes(node).items() if text in line)


def kill(cluster: Cluster, node: str, text: str, number: str = "KILL", program: str = "") -> None:
    """End the first process of a node whose command line contains a text; if given, one whose program has this name."""
    lines = cluster.processes(node)
    found = [pid for pid in pids(cluster, node, text) if Path(lines[pid].split()[0]).name.startswith(program)]
    assert found, processes_of(cluster)
    cluster.run("kill", f"-{number}", str(found[0]))


def tell(run_dir: Path) -> str:
    """The ends of all logs of a run, and what Slurm says, for the message of a test that failed."""
    parts = [seen_by_slurm()] if "SLURM_CONF" in os.environ else []
    logs = [*run_dir.glob("slurm/**/*.log"), *run_dir.glob("attempts/[0-9]*/*.log"), run_dir / "ledger.jsonl"]
    for path in [*logs, run_dir / "progress.jsonl"]:
        if path.exists():
            lines = path.read_text(errors="replace").splitlines()[-12:]
            parts.append(f"== {path.relative_to(run_dir)}\n" + "\n".join(line[:300] for line in lines))
    return "\n".join(parts)


def seen_by_slurm() -> str:
    """Jobs with the reasons for which they wait, nodes with their states, and the ends of the daemons' logs."""
    asked = (("scontrol", "--oneliner", "show", "job"), ("sinfo", "-N", "-o", "%n %T %E"))
    parts = []
    for command in asked:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            told = done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            told = "no answer within 60 s"
        parts.append(f"== {' '.join(command)}\n" + "\n".join(line[:1500] for line in told.splitlines()))
    return "\n".join([*parts, Cluster(Path(os.environ["SLURM_CONF"]).parent).logs(40)])


def local_losses(folder: Path, **sections: Mapping[str, Any]) -> dict[int, float]:
    """The same run on this machine, without Slurm and without interruption."""
    run_file = prepare(folder, **sections)
    run("run", str(run_file), "--run-dir", str(folder / "out"), "--local", timeout_s=400)
    return losses(folder / "out")


def losses(run_dir: Path) -> dict[int, float]:
    """Loss of every step; a step that was repeated counts with its last value."""
    return {event["step"]: event["metrics"]["train/loss"] for event in events(run_dir, "step")}
