"""Job scripts run by bash, with stand-ins for srun and scontrol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpc.sbatch.job import RUN_DIR, JobSpec
from hpc.sbatch.text import sbatch_text
from hpc.site.schema import Container, Site
from hpc.slurm.options import SRUN_OPTIONS
from tests.support.sample_jobs import HET, JOB, JOBS, REWARDS, TRAINERS
from tests.support.stand_ins import FACTS, Outcome, run_script

NASTY = 'my run\'s "best" $HOME #1 `id` 50%j %t é'
SAYS = 'printf "%s|" "$SLURM_PROCID" "$EBBTIDE_RUN_DIR" "${EBBTIDE_JOB_END:-none}" "$PYTHONPATH" "$@"; exit ${CODE:-0}'


def job(tmp_path: Path, like: JobSpec = HET, **changes: object) -> JobSpec:
    """A job in a nasty run directory, whose tasks say what they see; with CODE in the environment they fail."""
    run_dir = tmp_path / NASTY
    run_dir.mkdir(exist_ok=True)
    command = ("bash", "-c", SAYS, "x", "--run-dir", RUN_DIR, 'it\'s "$5"')
    base = replace(like, site=Site(nodes_exclude=("n7",)), run_dir=run_dir, command=command, code_dir=tmp_path / "code")
    return replace(base, **changes)  # type: ignore[arg-type]


def judged(tmp_path: Path, verdict: str | None, *, like: JobSpec | None = None, **environment: str) -> Outcome:
    """The outcome of a job whose task 0 leaves `verdict`."""
    like = like or job(tmp_path)
    if verdict is not None:
        says = f'[ "$SLURM_PROCID" != 0 ] || printf %s "$VERDICT" >"$EBBTIDE_SLURM_DIR/verdict"; {SAYS}'
        like = replace(like, command=("bash", "-c", says, "x"))
        environment["VERDICT"] = verdict
    return run_script(sbatch_text(like), tmp_path, **environment)


def traces(tmp_path: Path, restart: int = 0) -> Path:
    return tmp_path / NASTY / "slurm" / "70" / str(restart)


def test_each_task_sees_its_world_and_writes_its_own_log(tmp_path: Path) -> None:
    outcome = judged(tmp_path, None, PYTHONPATH="/mine")
    folder, code = tmp_path / NASTY, tmp_path / "code"
    for procid in (0, 1):
        text = (traces(tmp_path) / f"task-{procid}.log").read_text()
        assert text == f'{procid}|{folder}|1767326400|{code}:/mine|--run-dir|{folder}|it\'s "$5"|'
    assert outcome.output.count("\n") == 1  # nothing of the tasks


def test_the_end_of_the_job_is_taken_from_the_environment_where_slurm_says_it(tmp_path: Path) -> None:
    outcome = judged(tmp_path, None, SLURM_JOB_END_TIME="1234")
    assert outcome.named("scontrol") == []
    assert "|1234|" in (traces(tmp_path) / "task-0.log").read_text()


@pytest.mark.parametrize("facts", ["", "JobId=70 EndTime=Unknown Deadline=N/A", "slurm_load_jobs error"])
def test_without_a_known_end_the_variable_is_not_there(tmp_path: Path, facts: str) -> None:
    judged(tmp_path, None, JOB_FACTS=facts, SHOW_CODE="0" if facts.startswith("JobId") else "1")
    assert "|none|" in (traces(tmp_path) / "task-0.log").read_text()


def test_one_srun_has_the_cpus_of_each_component(tmp_path: Path) -> None:
    (words,) = judged(tmp_path, "end").named("srun")
    first, second = words[: words.index(":")], words[words.index(":") + 1 :]
    assert {"--het-group=0", "--cpus-per-task=64"} <= set(first)
    assert {"--het-group=1", "--cpus-per-task=16"} <= set(second)
    common = {"--kill-on-bad-exit=1", "--wait=60", "--unbuffered", "--export=ALL"}
    assert common <= set(first)
    assert common <= set(second)


def test_the_srun_of_every_component_has_the_sites_options_as_one_word_each(tmp_path: Path) -> None:
    site = Site(srun={"mpi": "none", "network": "no vni, $HOME 'x'", "overlap": ""})
    job_file = job(tmp_path, replace(HET, components=JOBS["options"].components), site=site)
    (words,) = judged(tmp_path, "end", like=job_file).named("srun")
    first, second = words[: words.index(":")], words[words.index(":") + 1 :]
    for part in (first, second):
        assert part[1:9] == [f"--cpus-per-task={16 if part is second else 64}", *SRUN_OPTIONS, "--mpi=none"]
        assert part[9:12] == ["--network=no vni, $HOME 'x'", "--overlap", "bash"]


@pytest.mark.parametrize(
    ("verdict", "srun_code", "script_code"),
    [("end\n", 0, 0), ("end\n\n", 0, 0), ("end", 3, 3), (None, 0, 1), (None, 3, 3), ("", 0, 1), ("perhaps\n", 0, 1)],
)
def test_the_exit_code(tmp_path: Path, verdict: str | None, srun_code: int, script_code: int) -> None:
    outcome = judged(tmp_path, verdict, CODE=str(srun_code))
    assert outcome.code == script_code
    assert outcome.named("scontrol", "requeue") == []
    if not (verdict or "").startswith("end"):
        assert f"srun ended with code {srun_code} and task 0 left no verdict: see {traces(tmp_path)}" in outcome.output


def test_an_srun_that_starts_nothing_fails_the_job(tmp_path: Path) -> None:
    outcome = judged(tmp_path, "end", SRUN_CODE="42")
    assert outcome.code == 42
    assert "left no verdict" in outcome.output


@pytest.mark.parametrize("code", ["0", "3"])
def test_a_requeue_leaves_out_nodes_in_every_component_and_waits_to_be_ended(tmp_path: Path, code: str) -> None:
    outcome = judged(tmp_path, "requeue\nn3,n4\n", CODE=code)
    assert outcome.named("scontrol")[1:] == [
        ["show", "job", "--oneliner", "70"],
        ["requeue", "70"],
        ["update", "JobId=70", "ExcNodeList=n7,n9,n3,n4"],
        ["update", "JobId=71", "ExcNodeList=n7,n9,n3,n4"],
    ]
    assert outcome.named("sleep")[-1] == ["600"]
    assert outcome.code != 0


NEEDS = (
    "JobId=70 JobState=RUNNING Reason=None Restarts=0 EndTime=2026-01-02T04:00:00 Partition=batch "
    "AllocNode:Sid=login:1 NumNodes=2 Features={features} TresPerNode=gres/gpu:2 \n"
    "JobId=71 JobState=RUNNING Reason=None Restarts=0 EndTime=2026-01-02T04:00:00 Partition=batch NumNodes=1 "
    "Features=(null) "
)
GPU = "gpu:2(S:0)"
NODES = f"n1 big,new {GPU}\nn2 big,old {GPU}\nn3 big,new {GPU}\nn4 new {GPU}\nn5 big (null)\nn1 big,new {GPU}\n"


@pytest.mark.parametrize(
    ("features", "failed", "left"),
    [
        ("(null)", "n1", None),
        ("(null)", "n1,n2", None),
        ("(null)", "n1,n2,n3", 1),
        ("big", "n1,n2", 1),
        ("big&new", "n3", 1),
        ("big&new", "n4", None),
        ("[big|new]", "n1,n2", None),
    ],
)
def test_a_list_that_would_make_the_job_impossible_is_emptied_and_said_so(
    tmp_path: Path, features: str, failed: str, left: int | None
) -> None:
    """Two nodes with GPUs of one partition, and one more; a feature list that is more than plain words is not read."""
    facts = NEEDS.format(features=features)
    outcome = judged(tmp_path, f"requeue\n{failed}\n", JOB_FACTS=facts, NODES=NODES)
    nodes = "n7,n9" if left is not None else f"n7,n9,{failed}"
    assert outcome.named("scontrol", "update") == [
        ["update", f"JobId={job}", f"ExcNodeList={nodes}"] for job in ("70", "71")
    ]
    said = f"without n7,n9,{failed} partition batch has {left} nodes that fit, the job needs 2: no node is left out"
    assert (said in outcome.output) == (left is not None)


def test_where_slurm_does_not_tell_of_nodes_the_list_stays(tmp_path: Path) -> None:
    facts = NEEDS.format(features="(null)")
    outcome = judged(tmp_path, "requeue\nn3\n", JOB_FACTS=facts)
    assert outcome.named("scontrol", "update")[0] == ["update", "JobId=70", "ExcNodeList=n7,n9,n3"]


def test_a_requeue_without_nodes_changes_no_list(tmp_path: Path) -> None:
    outcome = judged(tmp_path, "requeue\n\n")
    assert len(outcome.named("scontrol", "requeue")) == 1
    assert outcome.named("scontrol", "update") == []


def test_a_first_excluded_node_has_no_comma_before_it(tmp_path: Path) -> None:
    ordinary = job(tmp_path, JOB, site=Site())
    outcome = judged(tmp_path, "requeue\nn3", like=ordinary)
    assert outcome.named("scontrol", "update") == [["update", "JobId=70", "ExcNodeList=n3"]]


@pytest.mark.parametrize("code", ["0", "3"])
def test_where_a_chain_goes_on_its_next_jobs_leave_out_the_nodes(tmp_path: Path, code: str) -> None:
    outcome = judged(tmp_path, "end\nn3,n4\n80+0 80+1\n", CODE=code, like=job(tmp_path, requeue=False))
    assert outcome.named("scontrol")[1:] == [
        ["update", "JobId=80+0", "ExcNodeList=n7,n9,n3,n4"],
        ["update", "JobId=80+1", "ExcNodeList=n7,n9,n3,n4"],
    ]
    assert outcome.code == int(code)


@pytest.mark.parametrize("verdict", ["end\n\n80\n", "end\nn3\n\n", "end\nn3\n"], ids=["no node", "no job", "short"])
def test_an_end_with_nothing_to_hand_on_asks_nobody(tmp_path: Path, verdict: str) -> None:
    assert judged(tmp_path, verdict).named("scontrol", "update") == []


@pytest.mark.parametrize(
    ("facts", "requeues", "says"),
    [
        ("JobId=70 JobState=COMPLETING Reason=None Restarts=0 ", 0, "cancelled and stays so"),
        ("JobId=70 JobState=CANCELLED Reason=None Restarts=0 ", 0, "cancelled and stays so"),
        ("JobId=70 JobState=COMPLETING Reason=TimeLimit Restarts=0 ", 1, ""),
        ("JobId=70 JobState=PENDING Reason=BeginTime Restarts=1 ", 0, "requeued the job by itself"),
    ],
)
def test_a_job_is_requeued_only_if_it_is_still_wanted(tmp_path: Path, facts: str, requeues: int, says: str) -> None:
    outcome = judged(tmp_path, "requeue\n", JOB_FACTS=facts)
    assert len(outcome.named("scontrol", "requeue")) == requeues
    assert says in outcome.output
    assert outcome.code != 0


def test_nodes_are_left_out_also_where_slurm_requeued_by_itself(tmp_path: Path) -> None:
    outcome = judged(tmp_path, "requeue\nn3", JOB_FACTS="JobId=70 JobState=PENDING Reason=BeginTime Restarts=1 ")
    assert len(outcome.named("scontrol", "update")) == 2


def test_a_restart_has_a_folder_of_its_own_and_no_verdict_of_the_one_before(tmp_path: Path) -> None:
    traces(tmp_path, 1).mkdir(parents=True)
    (traces(tmp_path, 1) / "verdict").write_text("end\n")
    outcome = judged(tmp_path, None, SLURM_RESTART_COUNT="1")
    assert outcome.code == 1
    assert (traces(tmp_path, 1) / "task-0.log").exists()


def test_a_refused_requeue_is_tried_again_and_then_an_error(tmp_path: Path) -> None:
    outcome = judged(tmp_path, "requeue\n", REQUEUE_CODE="1")
    assert len(outcome.named("scontrol", "requeue")) == 3
    assert "requeueing failed: submit it again" in outcome.output
    assert outcome.code == 1


def test_a_job_that_may_not_requeue_fails_and_says_why(tmp_path: Path) -> None:
    outcome = judged(tmp_path, "requeue\nn3", like=job(tmp_path, requeue=False))
    assert (outcome.code, outcome.named("scontrol", "requeue")) == (1, [])
    assert "the next one goes on from here" in outcome.output


def test_a_signal_to_the_shell_does_not_end_it_before_its_tasks(tmp_path: Path) -> None:
    says = 'kill -USR2 $BATCH; kill -TERM $BATCH; printf "end\\n" >"$EBBTIDE_SLURM_DIR/verdict"'
    text = sbatch_text(job(tmp_path, JOB, command=("bash", "-c", says))).replace("set -u", "export BATCH=$$", 1)
    assert run_script(text, tmp_path).code == 0


def test_an_element_of_an_array_works_in_its_own_run_directory(tmp_path: Path) -> None:
    folders = tuple(tmp_path / f"{NASTY} {number}" for number in range(3))
    sweep = job(tmp_path, JOB, array_run_dirs=folders)
    run_script(sbatch_text(sweep), tmp_path)
    assert [folder.exists() for folder in folders] == [False, False, True]
    text = (folders[2] / "slurm" / "70" / "0" / "task-0.log").read_text()
    assert f"|--run-dir|{folders[2]}|" in text


def test_submitits_logs_are_named_as_submitit_expects(tmp_path: Path) -> None:
    folder = tmp_path / NASTY
    pattern = str(folder).replace("%", "%%")
    like = job(tmp_path, task_stdout=f"{pattern}/%j_%t_log.out", task_stderr=f"{pattern}/%j_%t_log.err", verdict=False)
    like = replace(like, command=("bash", "-c", "echo out; echo err >&2; exit 4"))
    assert run_script(sbatch_text(like), tmp_path).code == 4
    assert (folder / "70_1_log.out").read_text() == "out\n"
    assert (folder / "70_1_log.err").read_text() == "err\n"


def test_apptainer_stands_before_the_command(tmp_path: Path) -> None:
    container = Container(
        runtime="apptainer", image="/my image.sif", mounts=("/data:/d:ro",), environment={"LIST": "a,b"}
    )
    like = job(tmp_path, site=Site(container=container), components=(TRAINERS, REWARDS))
    program = tmp_path / "stand ins" / "apptainer"
    program.parent.mkdir()
    program.write_text('#!/bin/bash\nprintf "%s|" "$APPTAINERENV_LIST" "$@"\n')
    program.chmod(0o755)
    run_script(sbatch_text(like), tmp_path)
    words = (traces(tmp_path) / "task-1.log").read_text().split("|")
    folder = tmp_path / NASTY
    assert words[:3] == ["a,b", "exec", "--nv"]
    assert words[3:6] == [f"--bind={folder}:{folder}", f"--bind={tmp_path}/code:{tmp_path}/code", "--bind=/data:/d:ro"]
    assert words[6:9] == ["/my image.sif", "bash", "-c"]


def test_pyxis_options_are_those_of_srun(tmp_path: Path) -> None:
    like = job(tmp_path, site=Site(container=Container(runtime="pyxis", image="a b.sqsh", mounts=("/data",))))
    (words,) = run_script(sbatch_text(like), tmp_path, SLURM_RESTART_COUNT="2").named("srun")
    folder = tmp_path / NASTY
    assert words.count("--container-image=a b.sqsh") == 2
    assert words.count("--container-name=ebbtide-70-2") == 2
    assert f"--container-mounts={folder}:{folder},{tmp_path}/code:{tmp_path}/code,/data:/data" in words


def test_modules_and_setup_come_first(tmp_path: Path) -> None:
    site = Site(modules=("cuda/13",), setup=("export FROM_SETUP='a b'", "echo set up"))
    outcome = run_script(sbatch_text(job(tmp_path, site=site)), tmp_path)
    assert outcome.calls[0] == ["module", "load", "cuda/13"]
    assert outcome.output.startswith("set up\n")


def test_facts_of_the_stand_in_are_as_slurm_prints_them() -> None:
    assert FACTS.count("JobState=RUNNING ") == 2
