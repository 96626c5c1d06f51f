"""Runs on the same nodes at the same time, of one user and of two: each as if alone, and nobody gets into another's."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.slurm_cluster import Cluster, ClusterError
from tests.slurm_cluster.people import Person, left_in
from tests.support import intruder
from tests.support.slurm_runs import (
    attempts,
    complete,
    hold,
    hold_phases,
    local_losses,
    losses,
    prepare,
    processes_of,
    site_of,
    submit,
    tell,
    wait_for_phase,
)
from tests.support.tiny_runs import EBBTIDE

pytestmark = [pytest.mark.slurm, pytest.mark.run, pytest.mark.slow, pytest.mark.timeout(1200)]

REFUSED = ("secret", "environments", "memories", "descriptors", "signalled", "connected", "read", "written")


def test_two_runs_of_one_user_on_the_same_nodes(cluster: Cluster, tmp_path: Path) -> None:
    run_files = [prepare(tmp_path / name, num_nodes=2) for name in ("first", "second")]
    jobs = {}
    for run_file in run_files:
        hold_phases(run_file)
        hold(run_file, "rollout step=1")
        run_dir = run_file.parent / "out"
        jobs[run_dir] = submit(run_file, run_dir, "--set", "slurm.exclude=[n3, n4]")
    for run_dir in jobs:
        wait_for_phase(run_dir, "rollout step=1")
        assert attempts(run_dir)[0].nodes == ("n1", "n2")
    assert len({engine_url(run_dir, node) for run_dir in jobs for node in (0, 1)}) == 4
    for run_file in run_files:
        hold(run_file, None)
    for run_dir, job in jobs.items():
        complete(cluster, job, run_dir)
    first, second = (losses(run_dir) for run_dir in jobs)
    assert first == second, tell(run_dir)


def engine_url(run_dir: Path, node: int) -> str:
    """Where the engine of a node answers in the first attempt."""
    log = (run_dir / "attempts" / "1" / f"agent-{node}.log").read_text()
    found = re.search(r"engine=\S+ .* url=(\S+)", log)
    assert found is not None, log
    return found[1]


@dataclass(frozen=True)
class Run:
    """One user's, in the home: others may enter that."""

    person: Person
    run_file: Path
    run_dir: Path
    job: str

    @property
    def key_file(self) -> Path:
        return self.run_dir / "attempts" / "1" / "key"

    def url(self, node: int) -> str:
        """Where the engine of a node answers."""
        return engine_url(self.run_dir, node)


def test_two_users_on_the_same_nodes(cluster_with_people: Cluster, tmp_path: Path) -> None:
    """One shows nobody anything (umask 077), one shares with the group that both are in (002)."""
    cluster = cluster_with_people
    alone = local_losses(tmp_path / "alone")
    runs = [
        start(cluster, person, umask) for person, umask in zip(cluster.settings.people, ("077", "002"), strict=True)
    ]
    for run in runs:
        wait_for_phase(run.run_dir, "rollout step=1")
        assert attempts(run.run_dir)[0].nodes == ("n1", "n2")
    assert len({run.url(node) for run in runs for node in (0, 1)}) == 4
    for owner, other in (runs, reversed(runs)):
        keep_out(cluster, owner, other)
    closed, shared = (look(cluster, other, owner, 0) for owner, other in (runs, reversed(runs)))
    assert (closed["listed"], shared["listed"]) == (False, True)
    for run in runs:
        hold(run.run_file, None)
    for run in runs:
        complete(cluster, run.job, run.run_dir)
        assert losses(run.run_dir) == pytest.approx(alone, abs=1e-6), tell(run.run_dir)
    first, second = (attempts(run.run_dir)[0] for run in runs)
    assert max(first.began, second.began) < min(first.ended or 0.0, second.ended or 0.0)
    assert not processes_of(cluster)
    left = left_in(Path("/tmp"), cluster.settings.people)
    assert {path.name for path in left} == {f"ebbtide-compiled-{run.person.uid}" for run in runs}


def start(cluster: Cluster, person: Person, umask: str) -> Run:
    """A run that is held while its engines are at work."""
    run_file = prepare(person.home / "work", num_nodes=2)
    hold_phases(run_file)
    hold(run_file, "rollout step=1")
    for path in (run_file.parent, *run_file.parent.rglob("*")):
        os.chown(path, person.uid, person.gid)
    run_dir = run_file.parent / "out"
    command = [EBBTIDE, "submit", str(run_file), "--run-dir", str(run_dir), *site_of(run_file)]
    cluster.as_person(person, "bash", "-c", f'umask {umask}; exec "$@"', "bash", *command, timeout_s=120)
    return Run(person, run_file, run_dir, json.loads((run_dir / "slurm" / "job.json").read_text())["job_id"])


def look(cluster: Cluster, intruding: Run, owner: Run, node: int, key: str = "") -> dict[str, Any]:
    """What a user finds out on a node about another's run."""
    command = [sys.executable, intruder.__file__, str(owner.person.uid), owner.url(node), str(owner.key_file)]
    told = cluster.as_person(intruding.person, *command, *([key] if key else []), node=f"n{node + 1}")
    found: dict[str, Any] = json.loads(told)
    return found


def keep_out(cluster: Cluster, owner: Run, other: Run) -> None:
    """On both nodes, with no key and with the other's own; the owner's key shows that the question was well put."""
    key = owner.key_file.read_text()
    for node in (0, 1):
        for tried in ("", other.key_file.read_text()):
            found = look(cluster, other, owner, node, tried)
            assert found["processes"] >= 4  # task, torchrun, trainer rank, engine
            assert found["answer"] == 401
            assert {kind: found[kind] for kind in REFUSED if found[kind]} == {}
            assert not any(key in line for line in found["command_lines"])
        own = look(cluster, owner, owner, node, key)
        assert own["answer"] == 200
        assert all(own[kind] for kind in REFUSED), own
        assert len(own["signalled"]) >= 4
    with pytest.raises(ClusterError, match="denied"):
        cluster.as_person(other.person, "scancel", owner.job)
    assert cluster.wait_for_state(owner.job, ["RUNNING"], 5)
    texts = [*owner.run_dir.glob("slurm/**/*"), *owner.run_dir.glob("attempts/1/*.log"), owner.run_dir / "run.yaml"]
    assert not [path for path in texts if path.is_file() and key in path.read_text(errors="replace")]
