"""Job scripts as Slurm runs them: layout of the tasks, logs, signals, and what follows from the verdict."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from hpc.sbatch.job import RUN_DIR, JobSpec
from hpc.sbatch.text import sbatch_text
from hpc.site.schema import Site
from hpc.slurm.component import Component
from tests.slurm_cluster import Cluster, wait_until

pytestmark = pytest.mark.slurm

NASTY = 'my run\'s "best" $HOME #1 `id` 50%j é'
SAYS = 'echo "$SLURM_PROCID $(hostname) ${CUDA_VISIBLE_DEVICES:-none} $EBBTIDE_JOB_END ${SLURM_RESTART_COUNT:-0} $1"'
VERDICT = '[ "$SLURM_PROCID" != 0 ] || printf %s "{}" >"$EBBTIDE_SLURM_DIR/verdict"'
TRAINERS = Component("trainers", nodes=2, cpus_per_task=4, gpus_per_node=2, mem="2G")
REWARDS = Component("rewards", nodes=1, cpus_per_task=2, mem="1G")
LAYOUTS = {
    "ordinary": (TRAINERS,),
    "heterogeneous": (TRAINERS, REWARDS),
    "heterogeneous, same CPUs": (TRAINERS, replace(REWARDS, cpus_per_task=4)),
    "heterogeneous, no CPUs named": (replace(TRAINERS, cpus_per_task=None), replace(REWARDS, cpus_per_task=None)),
}


def job(tmp_path: Path, *says: str, components: tuple[Component, ...] = LAYOUTS["heterogeneous"]) -> JobSpec:
    """A job of a minute whose tasks run the lines `says` in bash."""
    run_dir = tmp_path / NASTY
    (run_dir / "slurm").mkdir(parents=True, exist_ok=True)
    command = ("bash", "-c", "; ".join((SAYS, *says)), "task", RUN_DIR)
    site = Site(gpu_option="gpus-per-node")
    return JobSpec("scripts", components, 1, command, site, run_dir, code_dir=tmp_path, signal_lead_s=30)


def submit(cluster: Cluster, job: JobSpec) -> str:
    script = job.run_dir / "job.sbatch"
    script.write_text(sbatch_text(job), encoding="utf-8")
    return cluster.run("sbatch", "--parsable", str(script), cwd=job.run_dir).strip()


def log(job: JobSpec, job_id: str, procid: int, restart: int = 0) -> str:
    path = job.run_dir / "slurm" / job_id / str(restart) / f"task-{procid}.log"
    return path.read_text() if path.exists() else ""


def state(cluster: Cluster, job_id: str, deadline_s: float = 60.0) -> str:
    """The state that the job, or its leader, ends in."""
    ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
    return cluster.wait_for_state(job_id, ends, deadline_s)


def facts(cluster: Cluster, job_id: str) -> str:
    return cluster.run("scontrol", "show", "job", "--oneliner", job_id)


@pytest.mark.parametrize("heterogeneous", [True, False], ids=["as it is", "in one allocation"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_task_runs_once_on_the_nodes_of_its_component(
    cluster: Cluster, tmp_path: Path, layout: str, heterogeneous: bool
) -> None:
    wanted = job(tmp_path, VERDICT.format("end"), components=LAYOUTS[layout])
    wanted = replace(wanted, heterogeneous=heterogeneous)
    job_id = submit(cluster, wanted)
    assert state(cluster, job_id) == "COMPLETED"
    lines = [log(wanted, job_id, procid).split(maxsplit=5) for procid in range(wanted.num_tasks)]
    assert [line[0] for line in lines] == [str(procid) for procid in range(wanted.num_tasks)]
    assert len({line[1] for line in lines}) == wanted.num_tasks
    assert [line[2] for line in lines[:2]] == ["0,1", "0,1"]
    if wanted.num_het_components > 1:
        assert lines[2][2] == "none"
    assert {line[5].strip() for line in lines} == {str(wanted.run_dir)}
    assert all(0 < int(line[3]) - time.time() < 70 for line in lines)
    leader = [part for part in facts(cluster, job_id).split() if part.startswith("Partition=")]
    assert len(leader) == wanted.num_het_components


@pytest.mark.parametrize("layout", ["ordinary", "heterogeneous"])
def test_a_requeued_job_runs_without_the_nodes_of_the_verdict(cluster: Cluster, tmp_path: Path, layout: str) -> None:
    components = tuple(replace(component, nodes=1) for component in LAYOUTS[layout])
    first = f'if [ "${{SLURM_RESTART_COUNT:-0}}" = 0 ]; then {VERDICT.format("requeue$(echo; echo n1,n2)")}'
    all_spoke = f'until [ -s "$EBBTIDE_SLURM_DIR/task-{len(components) - 1}.log" ]; do sleep 0.1; done'
    leader_fails = f'{first}; [ "$SLURM_PROCID" = 0 ] && {{ {all_spoke}; exit 9; }}; sleep 30; fi'
    wanted = job(tmp_path, leader_fails, VERDICT.format("end"), components=components)
    job_id = submit(cluster, wanted)
    wait_until(
        lambda: log(wanted, job_id, 0, restart=1) != "", 60.0, "the second start", lambda: facts(cluster, job_id)
    )
    assert state(cluster, job_id) == "COMPLETED"
    for procid in range(len(components)):
        assert log(wanted, job_id, procid).split()[1] in ("n1", "n2")
        assert log(wanted, job_id, procid, restart=1).split()[1] in ("n3", "n4")


@pytest.mark.parametrize("layout", ["ordinary", "heterogeneous"])
def test_a_job_that_ends_hands_its_nodes_to_leave_out_to_the_next_of_a_chain(
    cluster: Cluster, tmp_path: Path, layout: str
) -> None:
    """The next one waits for it in the queue; each of its components leaves them out."""
    components = tuple(replace(component, nodes=1) for component in LAYOUTS[layout])
    told = 'until [ -s "$1/next" ]; do sleep 0.1; done'
    first = job(tmp_path, told, VERDICT.format('end$(echo; echo n1,n2; cat "$1/next")'), components=components)
    first_id = submit(cluster, replace(first, requeue=False))
    second = job(tmp_path, VERDICT.format("end"), components=components)
    second_id = submit(cluster, replace(second, requeue=False, dependency=f"afterany:{first_id}"))
    parts = [f"{second_id}+{number}" for number in range(len(components))]
    (first.run_dir / "next").write_text(" ".join(parts) if len(parts) > 1 else second_id)
    assert state(cluster, first_id) == "COMPLETED"
    assert state(cluster, second_id) == "COMPLETED"
    for procid in range(len(components)):
        assert log(first, first_id, procid).split()[1] in ("n1", "n2")
        assert log(second, second_id, procid).split()[1] in ("n3", "n4")


@pytest.mark.parametrize(
    ("says", "layout"),
    [
        (f'{VERDICT.format("end")}; [ "$SLURM_PROCID" != 2 ] || exit 7; sleep 30', "heterogeneous"),
        (f'[ "$SLURM_PROCID" != 0 ] || exit 7; sleep 30; {VERDICT.format("end")}', "heterogeneous"),
        ('[ "$SLURM_PROCID" != 1 ] || kill -KILL $$; sleep 30', "ordinary"),
        ("true", "heterogeneous"),
    ],
    ids=["a worker fails", "the leader fails", "a task is killed", "all end well, without a verdict"],
)
def test_a_job_never_completes_unless_all_its_tasks_do(
    cluster: Cluster, tmp_path: Path, says: str, layout: str
) -> None:
    job_id = submit(cluster, job(tmp_path, says, components=LAYOUTS[layout]))
    assert state(cluster, job_id) == "FAILED"


def test_a_step_that_cannot_start_fails_the_job(cluster: Cluster, tmp_path: Path) -> None:
    """The leader's verdict cannot be there when no task has run."""
    wanted = job(tmp_path, VERDICT.format("end"))
    text = sbatch_text(wanted).replace("--cpus-per-task=2 ", "--cpus-per-task=9 ")
    (wanted.run_dir / "job.sbatch").write_text(text)
    job_id = cluster.run("sbatch", "--parsable", str(wanted.run_dir / "job.sbatch"), cwd=tmp_path).strip()
    assert state(cluster, job_id) == "FAILED"


def test_a_cancelled_job_stays_cancelled_whatever_the_verdict(cluster: Cluster, tmp_path: Path) -> None:
    stop = f"trap '{VERDICT.format('requeue')}; exit 3' TERM"
    wanted = job(tmp_path, stop, "echo ready", "while :; do sleep 0.1; done")
    job_id = submit(cluster, wanted)
    wait_until(lambda: all("ready" in log(wanted, job_id, procid) for procid in range(3)), 30.0, "the tasks to run")
    cluster.run("scancel", job_id)
    assert state(cluster, job_id) == "CANCELLED"
    verdict = wanted.run_dir / "slurm" / job_id / "0" / "verdict"
    assert verdict.read_text() == "requeue"
    assert "Restarts=0 " in facts(cluster, job_id)
    batch_log = wanted.run_dir / "slurm" / f"batch-{job_id}.log"  # the script ends after Slurm says CANCELLED
    wait_until(lambda: "cancelled and stays so" in batch_log.read_text(), 15.0, "its word", batch_log.read_text)


def test_all_tasks_get_the_signal_ahead_of_the_limit_and_the_job_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    # the components are signalled one after the other, and the first task that ends takes the others along
    all_were = 'until [ $(cat "$EBBTIDE_SLURM_DIR"/task-*.log | grep -c signalled) = 3 ]; do sleep 0.1; done'
    decided = 'until [ -s "$EBBTIDE_SLURM_DIR/verdict" ]; do sleep 0.1; done'
    leaves = f"if [ $SLURM_PROCID = 0 ]; then {all_were}; {VERDICT.format('requeue')}; else {decided}; fi"
    stop = f"trap 'echo signalled; {leaves}; exit 5' USR2"
    second = f'[ "${{SLURM_RESTART_COUNT:-0}}" = 0 ] || {{ {VERDICT.format("end")}; exit 0; }}'
    wanted = job(tmp_path, second, stop, "while :; do sleep 0.1; done")
    job_id = submit(cluster, wanted)
    wait_until(
        lambda: log(wanted, job_id, 0, restart=1) != "", 90.0, "the second start", lambda: facts(cluster, job_id)
    )
    assert state(cluster, job_id) == "COMPLETED"
    assert ["signalled" in log(wanted, job_id, procid) for procid in range(3)] == [True, True, True]


def test_a_job_whose_node_is_lost_leaves_it_out(cluster: Cluster, tmp_path: Path) -> None:
    """Slurm itself requeues such a job; the verdict still says which nodes to leave out."""
    stop = f"trap '{VERDICT.format('requeue$(echo; echo n2)')}; exit 5' TERM"
    wanted = job(tmp_path, stop, "while :; do sleep 0.1; done", components=(replace(TRAINERS, nodes=2),))
    job_id = submit(cluster, wanted)
    wait_until(lambda: log(wanted, job_id, 1) != "", 30.0, "the tasks to run")
    assert [log(wanted, job_id, procid).split()[1] for procid in range(2)] == ["n1", "n2"]
    cluster.kill_node("n2", down=True)
    wait_until(
        lambda: log(wanted, job_id, 1, restart=1) != "", 60.0, "the second start", lambda: facts(cluster, job_id)
    )
    assert "ExcNodeList=n2 " in facts(cluster, job_id)
    assert log(wanted, job_id, 1, restart=1).split()[1] in ("n3", "n4")


def test_elements_of_an_array_requeue_each_for_itself(cluster: Cluster, tmp_path: Path) -> None:
    first = f'if [ "${{SLURM_RESTART_COUNT:-0}}" = 0 ]; then {VERDICT.format("requeue")}; exit 9; fi'
    wanted = job(tmp_path, first, VERDICT.format("end"), components=(Component("trainers"),))
    folders = tuple(wanted.run_dir / str(number) for number in range(3))
    wanted = replace(wanted, array_run_dirs=folders, array="0-2%2")
    job_id = submit(cluster, wanted)
    wait_until(lambda: not cluster.live_jobs(), 90.0, "all elements to end", lambda: str(cluster.live_jobs()))
    states = cluster.run("squeue", "-h", "-t", "all", "-r", "-j", job_id, "-o", "%T").split()
    assert states == ["COMPLETED"] * 3
    for folder in folders:
        assert len(list(folder.glob("slurm/*/0/task-0.log"))) == 1
        assert len(list(folder.glob("slurm/*/1/task-0.log"))) == 1
