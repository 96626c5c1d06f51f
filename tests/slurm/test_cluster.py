"""The test cluster itself: what the tests on it rely on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.slurm_cluster import Cluster, ClusterError, Settings, wait_until, why_not
from tests.slurm_cluster.cluster import ROOT, is_alive
from tests.support.slurm_runs import seen_by_slurm

pytestmark = pytest.mark.slurm


def test_nodes_have_own_names_addresses_and_shared_memory(cluster: Cluster, tmp_path: Path) -> None:
    script = 'touch /dev/shm/$(hostname); echo $(ls /dev/shm) $(getent ahostsv4 $(hostname) | head -1 | cut -d" " -f1)'
    lines = cluster.run("srun", "-N4", "-t", "1", "bash", "-c", script, cwd=tmp_path).splitlines()
    assert sorted(lines) == [f"{node} {cluster.address(node)}" for node in cluster.nodes]


def test_nodes_reach_each_other_by_name(cluster: Cluster, tmp_path: Path) -> None:
    """A server on n2 is reached from n3 by name and from here by address."""
    serve = f"echo hello > {tmp_path}/page; cd {tmp_path}; exec {sys.executable} -m http.server 8000"
    server = subprocess.Popen(["srun", "-w", "n2", "-t", "1", "bash", "-c", serve], stderr=subprocess.DEVNULL)
    fetch = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())"

    def answers() -> bool:
        return subprocess.run([sys.executable, "-c", fetch, there], capture_output=True).returncode == 0

    there = f"http://{cluster.address('n2')}:8000/page"
    wait_until(answers, 30.0, "the server on n2 to answer")
    fetched = cluster.run("srun", "-w", "n3", "-t", "1", sys.executable, "-c", fetch, "http://n2:8000/page")
    assert fetched.strip() == "hello"
    cluster.run("scancel", "--me")
    server.wait(timeout=30)


def test_killed_node_takes_its_processes_with_it(cluster: Cluster) -> None:
    job = cluster.run("sbatch", "--parsable", "-N2", "-t", "2", "-o", "/dev/null", "--wrap", "srun sleep 100").strip()
    wait_until(lambda: any("sleep 100" in line for line in cluster.processes("n2").values()), 30.0, "the step on n2")
    cluster.kill_node("n2", down=True)
    assert cluster.processes("n2") == {}
    cluster.wait_for_state(job, ["PENDING", "NODE_FAIL"])
    cluster.run("scancel", job)
    wait_until(lambda: not cluster.processes("n1"), 30.0, "the job's processes on n1 to end")
    cluster.start_node("n2")
    assert cluster.run("srun", "-w", "n2", "-t", "1", "hostname").strip() == "n2"


def test_node_that_boots_again_is_reached_from_the_others_at_once(cluster: Cluster) -> None:
    fetch = "import socket; print(socket.create_connection(('n2', 9), timeout=3))"  # refused, or no answer
    knock = ["srun", "-w", "n1", "-t", "1", sys.executable, "-c", fetch]
    for boot_again in (False, True):
        if boot_again:
            cluster.kill_node("n2")
            cluster.start_node("n2")
        said = subprocess.run(knock, capture_output=True, text=True, timeout=60).stderr
        assert "ConnectionRefusedError" in said


def test_a_state_is_waited_for_while_the_controller_is_away(cluster: Cluster) -> None:
    kept, began = cluster.folder / "state" / "job_state", time.time()
    job = cluster.run("sbatch", "--parsable", "-t", "2", "-o", "/dev/null", "--wrap", "sleep 5").strip()
    wait_until(lambda: kept.exists() and kept.stat().st_mtime > began, 60.0, "the job in the controller's files")
    cluster.command("stop-controller")
    with pytest.raises(ClusterError, match="squeue"):
        cluster.run("squeue", "-h", "-j", job)
    back = threading.Timer(1.0, cluster.command, ["start-controller"])
    back.start()
    assert cluster.wait_for_state(job, ["COMPLETED"]) == "COMPLETED"
    back.join()


def test_requeued_job_starts_again_within_seconds(cluster: Cluster, tmp_path: Path) -> None:
    wrap = f'echo "started ${{SLURM_RESTART_COUNT:-0}}" >> {tmp_path}/log; sleep 60'
    job = cluster.run("sbatch", "--parsable", "--requeue", "-t", "2", "-o", "/dev/null", "--wrap", wrap).strip()
    log = tmp_path / "log"
    wait_until(lambda: log.exists(), 30.0, "the first start")
    cluster.run("scontrol", "requeue", job)
    waiting = seen_by_slurm()
    assert f"JobId={job} " in waiting, "a test that fails tells of its jobs"
    assert all(text in waiting for text in (" Reason=", "n1 ", "== slurmctld.log")), waiting
    wait_until(lambda: "started 1" in log.read_text(), 60.0, "the second start")


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_nothing_is_left_when_the_guard_or_the_owner_is_killed() -> None:
    """Also shows that a second cluster runs beside the session's."""
    owner = subprocess.Popen(["sleep", "inf"])
    for kill_guard in (True, False):
        second = Cluster.start(Settings(folder="", num_nodes=2, accounting=False), owner=owner.pid)
        sleeper = subprocess.Popen(
            ["srun", "-N2", "-t", "5", "sleep", "567"],
            env={**os.environ, **second.environment},
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda second=second: len(second.processes("n2")) > 0, 30.0, "the step on n2")  # type: ignore[misc]
        node = int((second.folder / "run" / "n1.pid").read_text())
        if kill_guard:
            os.kill(int(guard_of(second)), signal.SIGKILL)
        else:
            owner.kill()
            owner.wait()
        interface = Path("/sys/class/net") / second.settings.interface
        wait_until(lambda second=second: not is_alive(second.folder), 30.0, "the guard to end")  # type: ignore[misc]
        wait_until(lambda node=node: not Path(f"/proc/{node}").exists(), 30.0, "n1 to end")  # type: ignore[misc]
        wait_until(lambda interface=interface: not interface.exists(), 30.0, "the cable to go")  # type: ignore[misc]
        sleeper.kill()
        sleeper.wait()
        if not kill_guard:
            wait_until(lambda second=second: not second.folder.exists(), 30.0, "the folder to go")  # type: ignore[misc]


def guard_of(running: Cluster) -> str:
    """The guard's process id: the parent of the node's process 1's parent."""
    node = (running.folder / "run" / "n1.pid").read_text()
    return next(
        line.split()[1] for line in Path(f"/proc/{node}/status").read_text().splitlines() if line.startswith("PPid")
    )


def test_shell_commands_start_and_stop_a_cluster() -> None:
    """What the package's docstring tells a person to type."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    tool = f"{sys.executable} -m tests.slurm_cluster"
    script = f"""set -e
    eval "$({tool} start --nodes 2 --no-accounting --owner $$)"
    srun -N2 -t 1 hostname
    {tool} kill-node n2 --down
    sinfo -h -N -n n2 -o %T | head -1
    {tool} start-node n2
    srun -w n2 -t 1 hostname
    {tool} stop
    """
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split()
    assert sorted(lines[:2]) == ["n1", "n2"]
    assert lines[2:] == ["down", "n2"]
