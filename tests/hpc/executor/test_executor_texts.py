"""What the executor would submit; nothing is submitted, and no Slurm is needed but a command of the name srun."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hpc import Component, HetSlurmExecutor, JobExecutor, JobSpec, Site
from hpc.slurm.commands import foreign_variables

TWO = [Component("trainers", nodes=2), Component("rewards", tasks_per_node=2)]


@pytest.fixture(autouse=True)
def srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text("#!/bin/bash\n")
    (tmp_path / "bin" / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")


def test_script_has_one_srun_over_all_components_and_logs_by_leader(tmp_path: Path) -> None:
    executor = HetSlurmExecutor(tmp_path / "logs", TWO, Site(account="physics"), time_minutes=30)
    text = " ".join(executor.script().split())
    assert text.count("#SBATCH hetjob") == 1
    assert text.count("--account=physics") == 2
    assert "srun --het-group=0-1" in text
    assert f"{sys.executable} -u -m hpc.executor.submitit_main {tmp_path}/logs" in text
    assert f'{tmp_path}/logs/"$SLURM_JOB_ID"_"$SLURM_PROCID"_log.out' in text
    assert "verdict" not in text
    assert "EBBTIDE_RUN_DIR" not in text


def test_one_allocation(tmp_path: Path) -> None:
    components = [Component("trainers", nodes=2), Component("rewards")]
    text = HetSlurmExecutor(tmp_path, components, heterogeneous=False).script()
    assert "hetjob" not in text
    assert "#SBATCH --nodes=3" in text


def test_job_of_a_run_keeps_its_logs_and_its_verdict(tmp_path: Path) -> None:
    spec = JobSpec("run", tuple(TWO), 60, ("unused",), Site(), tmp_path)
    text = JobExecutor(spec).script()
    assert "hpc.executor.submitit_main" in text
    assert "unused" not in text
    assert '"$EBBTIDE_SLURM_DIR/task-$SLURM_PROCID.log"' in text
    assert "scontrol requeue" in text


def test_parameters_by_submitits_names_and_ours(tmp_path: Path) -> None:
    executor = HetSlurmExecutor(tmp_path, TWO)
    executor.update_parameters(timeout_min=7, name="other", signal_lead_s=60, exclude=("n3",))
    text = executor.script()
    assert "--time=00:07:00" in text
    assert "--job-name=other" in text
    assert text.count("--exclude=n3") == 2
    assert executor.parameters["time"] == 7


def test_unknown_parameters_are_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"found the parameter 'time_minute', wanted one of .*did you mean time_min"):
        HetSlurmExecutor(tmp_path, TWO, time_minute=3)
    with pytest.raises(ValueError, match="found the parameter 'partition'"):
        HetSlurmExecutor(tmp_path, TWO).update_parameters(partition="gpu")


def test_folder_with_a_pattern_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wanted a folder without patterns"):
        HetSlurmExecutor(tmp_path / "%j", TWO)


def test_time_is_the_sites_if_none_is_given(tmp_path: Path) -> None:
    assert HetSlurmExecutor(tmp_path, TWO, Site(time="02:00:00")).job.time_minutes == 120
    assert HetSlurmExecutor(tmp_path, TWO).job.time_minutes == 60


def test_tasks_are_started_by_the_sites_interpreter(tmp_path: Path) -> None:
    assert HetSlurmExecutor(tmp_path, TWO, Site(python="/opt/python")).job.command[0] == "/opt/python"
    assert HetSlurmExecutor(tmp_path, TWO).job.command[0] == sys.executable


def test_variables_of_an_allocation_do_not_reach_a_job() -> None:
    env = {"SLURM_CONF": "/etc/slurm.conf", "SLURM_JOB_ID": "7", "SLURM_NTASKS": "3", "CUDA_VISIBLE_DEVICES": "1"}
    assert foreign_variables(env) == ["CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "SLURM_NTASKS"]
    assert foreign_variables({"CUDA_VISIBLE_DEVICES": "1", "PATH": "/bin"}) == []
