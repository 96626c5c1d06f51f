"""Processes of a run die on the cluster: each has its documented outcome; never a hang, never COMPLETED."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm_cluster import Cluster, wait_until
from tests.stress.disk import Disk
from tests.support.slurm_runs import (
    attempts,
    complete,
    failure,
    hold,
    hold_phases,
    kill,
    prepare,
    processes_of,
    run,
    site_of,
    submit,
    tell,
    wait_for,
    wait_for_phase,
)

pytestmark = [pytest.mark.slurm, pytest.mark.run, pytest.mark.slow]

TWO_PARTS = {"components": [{"role": "trainers"}, {"role": "rewards"}]}
RAISING_DATA = "\n\ndef boom(*_):\n    raise RuntimeError('boom')\n\n\nPhases.take_times = boom\n"


@pytest.fixture
def small_disk(cluster: Cluster, tmp_path: Path) -> Iterator[Disk]:
    """A disk that this machine and all nodes see; skips the test where none can be mounted."""
    try:
        disk = Disk(tmp_path / "disk.img", tmp_path / "disk")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    device = subprocess.run(["findmnt", "-no", "SOURCE", disk.folder], capture_output=True, text=True, check=True)
    for node in cluster.nodes:
        cluster.on_node(node, "mount", device.stdout.strip(), str(disk.folder))
    yield disk
    for node in cluster.nodes:
        cluster.on_node(node, "umount", "--lazy", str(disk.folder))
    disk.close()


def started(
    tmp_path: Path, *, phase: str | None = "rollout step=1", run_dir: Path | None = None, **sections: object
) -> tuple[str, Path, Path]:
    """A submitted run that is held in a phase: its job, run file and run directory."""
    run_dir, run_file = run_dir or tmp_path / "out", prepare(tmp_path, **sections)  # type: ignore[arg-type]
    hold_phases(run_file)
    hold(run_file, phase)
    job = submit(run_file, run_dir)
    if phase is not None:
        wait_for_phase(run_dir, phase)
    return job, run_file, run_dir


def test_a_trainer_rank_that_raises_fails_the_job(cluster: Cluster, tmp_path: Path) -> None:
    """An error of the program is not repeated on other nodes."""
    run_dir, run_file = tmp_path / "out", prepare(tmp_path)
    hold_phases(run_file)
    with (tmp_path / "rows.py").open("a") as file:
        file.write(RAISING_DATA)
    job = submit(run_file, run_dir)
    cluster.wait_for_state(job, ["FAILED"], 180)
    record = failure(run_dir, 1)
    assert (record.role, record.name, record.cause) == ("trainer", "0", "RuntimeError: boom")
    assert [a.how for a in attempts(run_dir)] == ["failed"]
    wait_until(lambda: not processes_of(cluster), 15, "all processes to end", lambda: str(processes_of(cluster)))


def test_a_trainer_rank_that_is_killed_is_tried_again_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    """Killed by the kernel for memory, or by broken hardware: the node is under suspicion."""
    job, run_file, run_dir = started(tmp_path)
    (node,) = attempts(run_dir)[0].nodes
    kill(cluster, node, "launchers.rank.trainer ")
    wait_for(lambda: len(attempts(run_dir)) == 2, 90, run_dir)
    hold(run_file, None)
    complete(cluster, job, run_dir)
    first, second = attempts(run_dir)
    assert (first.how, first.failed_nodes) == ("node_failure", (node,))
    assert node not in second.nodes
    assert failure(run_dir, 1).cause == "killed by signal 9 (SIGKILL)"


def test_a_disk_that_fills_up_is_named_wherever_one_looks(cluster: Cluster, tmp_path: Path, small_disk: Disk) -> None:
    """The end has its record in what was kept free for it; on the full disk nothing is sent again."""
    job, run_file, run_dir = started(tmp_path, run_dir=small_disk.folder / "out")
    small_disk.fill()
    hold(run_file, None)
    cluster.wait_for_state(job, ["FAILED"], 90)
    full = "No space left on device"
    assert full in failure(run_dir, 1).cause, tell(run_dir)
    assert [(a.how, full in (a.cause or "")) for a in attempts(run_dir)] == [("failed", True)], tell(run_dir)
    assert full in run("logs", str(run_dir))
    small_disk.fill()  # an end gives back what was half written
    said = run("submit", "--resume", str(run_dir), *site_of(run_file), expect=1)
    assert f"{run_dir}: found {full}" in said, said
    assert len(said.splitlines()) == 1, said


def test_what_no_node_has_is_waited_for_and_blames_none(cluster: Cluster, tmp_path: Path) -> None:
    """The site names a scratch that is on no node; somebody makes it."""
    run_dir, run_file = tmp_path / "out", prepare(tmp_path, num_nodes=2)
    scratch = tmp_path / "scratch"
    with (tmp_path / "site.yaml").open("a") as file:
        file.write(f"scratch: {scratch}\n")
    job = submit(run_file, run_dir)
    wait_for((run_dir / "attempts/1/waits").exists, 120, run_dir)
    said = " ".join(run("status", str(run_dir)).split())
    assert f"waiting for what all nodes report: {scratch}: found No such file or directory" in said, said
    scratch.mkdir()
    complete(cluster, job, run_dir)
    assert [(a.how, a.failed_nodes) for a in attempts(run_dir)] == [("complete", ())], tell(run_dir)
    assert [path for path in scratch.iterdir() if "compiled" not in path.name] == []


def test_servers_that_die_are_restarted_and_the_attempt_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    """An engine, and a reward server on a node of its own."""
    job, run_file, run_dir = started(tmp_path, slurm=TWO_PARTS)
    trainers, rewards = attempts(run_dir)[0].nodes
    kill(cluster, trainers, "ebbtide_engine_server")
    kill(cluster, rewards, "launchers.rank.reward_server")
    hold(run_file, None)
    complete(cluster, job, run_dir)
    assert [a.how for a in attempts(run_dir)] == ["complete"]
    assert "restarting" in (run_dir / "attempts/1/agent-0.log").read_text()
    assert "restarting" in (run_dir / "attempts/1/agent-1.log").read_text()


def test_servers_that_keep_dying_fail_the_job(cluster: Cluster, tmp_path: Path) -> None:
    job, _, run_dir = started(tmp_path, placement={"engine_restarts": 0})
    kill(cluster, attempts(run_dir)[0].nodes[0], "ebbtide_engine_server")
    cluster.wait_for_state(job, ["FAILED"], 90)
    record = failure(run_dir, 1)
    assert (record.role, record.name) == ("engine", "node0-engine0")
    assert record.cause == "killed by signal 9 (SIGKILL) after 0 restarts", tell(run_dir)


def test_an_agent_that_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """Another node's is named, and the job goes on without it; the leader's leaves nobody to judge: the job fails."""
    job, _, run_dir = started(tmp_path, num_nodes=2)
    _, other = attempts(run_dir)[0].nodes
    kill(cluster, other, "submitit_main", program="python")  # not srun, which has the same words behind it
    wait_until(lambda: len(attempts(run_dir)) == 2, 150, "the second attempt", lambda: tell(run_dir))
    first, second = attempts(run_dir)
    assert (first.how, first.failed_nodes) == ("node_failure", (other,)), tell(run_dir)
    assert other not in second.nodes
    record = failure(run_dir, 1)
    assert (record.role, record.name) == ("node", other)
    kill(cluster, second.nodes[0], "submitit_main", program="python")
    cluster.wait_for_state(job, ["FAILED"], 90)
    wait_until(lambda: not processes_of(cluster), 15, "all processes to end", lambda: str(processes_of(cluster)))


def test_an_agent_that_cannot_begin_is_named(cluster: Cluster, tmp_path: Path) -> None:
    """The site's interface is missing on the second node; Slurm then ends the first node's task, too."""
    run_dir, run_file = tmp_path / "out", prepare(tmp_path, num_nodes=2)
    with (tmp_path / "site.yaml").open("a") as file:
        file.write("interface: ib0\n")
    leader = cluster.nodes[0]
    cluster.on_node(leader, "ip", "link", "add", "ib0", "type", "veth", "peer", "name", "ib1")
    try:
        cluster.on_node(leader, "ip", "addr", "add", "10.77.1.1/24", "dev", "ib0")
        job = submit(run_file, run_dir)
        cluster.wait_for_state(job, ["FAILED"], 120)
    finally:
        cluster.on_node(leader, "ip", "link", "del", "ib0")
    record = failure(run_dir, 1)
    assert (record.role, record.name) == ("agent", "1"), tell(run_dir)
    assert "interface 'ib0' of the site file: this node has" in record.cause
    assert [a.how for a in attempts(run_dir)] == ["failed"]
