"""submit, sbatch, sweep, doctor and cancel with stand-ins for Slurm, in a Python that has no torch to import."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.command_stand_ins import ROOT, calls, ebbtide_with, stand_in
from tests.support.tiny_runs import write_run

SINFO = "printf 'main*|up|infinite|4|8|16000|gpu:2|(null)\\nshort|up|10:00|4|8|16000|gpu:2|(null)\\n'"
CONFIG = "printf 'ClusterName = test\\nSLURM_VERSION = 22.05\\nSchedulerType = sched/backfill\\nMaxArraySize = 4\\n'"
SBATCH = """\
id=$((6 + $(grep -c "^sbatch" %s/calls)))
[[ "$*" == *--parsable* ]] && echo $id || echo "Submitted batch job $id"
"""
LOGIN_NODE = f"exec(open({str(ROOT / 'tests/support/login_node.py')!r}).read())"


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), placement={"device": "cpu"})


class Login:
    """A login node: Slurm's stand-ins, a working directory, a site file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "bin"
        stand_in(self.programs, "sinfo", SINFO)
        stand_in(self.programs, "scontrol", CONFIG)
        stand_in(self.programs, "sacct", "")
        stand_in(self.programs, "squeue", "")
        stand_in(self.programs, "scancel", "")
        stand_in(self.programs, "sbatch", SBATCH % self.programs)
        self.site(shared_filesystems=[str(folder)])

    def site(self, **keys: Any) -> None:
        (self.folder / "site.yaml").write_text(yaml.safe_dump({"shared_filesystems": [str(self.folder)], **keys}))

    def __call__(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return ebbtide_with(self.programs, *map(str, words), cwd=self.folder, before=LOGIN_NODE)

    def sent(self) -> list[str]:
        return [call for call in calls(self.programs) if call.startswith("sbatch")]


@pytest.fixture
def login(tmp_path: Path) -> Login:
    return Login(tmp_path)


def squeue(login: Login, *rows: str) -> None:
    """What squeue says from now on: id, state, reason, nodes; the rest is made up."""
    lines = "\\n".join(f"{row}|1800000000|1800003600|1:00:00|0|0|" for row in rows)
    stand_in(login.programs, "squeue", f"printf '{lines}\\n'")


def record(run_dir: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((run_dir / "slurm" / "job.json").read_text())
    return fields


def test_submit_without_torch(login: Login, run_file: Path) -> None:
    done = login("submit", run_file, "--run-dir", "out", "--set", "slurm.time=00:10:00")
    assert done.returncode == 0, done.stderr
    out = login.folder / "out"
    assert f"run directory: {out}\njob: 7\n" in done.stdout
    assert f"ebbtide status {out} --watch" in done.stdout
    assert record(out)["job_id"] == "7"
    assert record(out)["site"] == str(login.folder / "site.yaml")
    assert "time: 00:10:00" in (out / "run.yaml").read_text()
    script = (out / "slurm" / "job.sbatch").read_text()
    assert "#SBATCH --time=00:10:00" in script
    assert len(login.sent()) == 1


def test_what_was_submitted_is_what_the_script_says(login: Login, run_file: Path) -> None:
    login("submit", run_file, "--run-dir", "out")
    sent = login.folder / "out" / "slurm" / "submitit" / "7_submission.sh"
    assert sent.read_text() == (login.folder / "out" / "slurm" / "job.sbatch").read_text()


@pytest.fixture
def small_disk(login: Login) -> Iterator[Path]:
    """A file system of 2 MiB in the login node's folder."""
    folder = login.folder / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"mounts a file system, which needs root: {mounted.stderr}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_told_in_a_line_and_no_job_is_sent_that_nobody_would_know(
    login: Login, run_file: Path, small_disk: Path
) -> None:
    """However much there is room for before it is full."""
    assert login("submit", run_file, "--run-dir", "disk/out", "--dry-run").returncode == 0
    for pages in (0, 3, 12):
        found = os.statvfs(small_disk)
        with (small_disk / "filler").open("wb") as file:
            file.write(b"0" * ((found.f_bavail - pages) * found.f_frsize))
        done = login("submit", "--resume", "disk/out")
        (small_disk / "filler").unlink()
        place = small_disk / "out"
        wanted = "found No space left on device; wanted a place that can be used: choose another, or see to its"
        assert (done.returncode, done.stderr.splitlines()[-1][: len(f"{place}: {wanted}")]) == (1, f"{place}: {wanted}")
        assert "Traceback" not in done.stderr
        assert login.sent() == []
    assert login("submit", "--resume", "disk/out").returncode == 0
    assert record(small_disk / "out")["job_id"] == "7"


def test_dry_run_shows_everything_and_submits_nothing(login: Login, run_file: Path) -> None:
    done = login("submit", run_file, "--run-dir", "out", "--dry-run")
    assert done.returncode == 0, done.stderr
    for part in ("#SBATCH --job-name=tiny", "srun ", "rollout_batch_size: 4", "node agent", "nothing was submitted"):
        assert part in done.stdout
    assert login.sent() == []
    assert login("submit", "--resume", "out").returncode == 0
    assert len(login.sent()) == 1


def test_dry_run_on_a_machine_without_slurm(login: Login, run_file: Path) -> None:
    for name in ("sinfo", "scontrol", "sbatch", "squeue"):
        (login.programs / name).unlink()
    login.programs.joinpath("sinfo").write_text("not executable")
    done = login("submit", run_file, "--run-dir", "out", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "not checked against the cluster: sinfo: found" in done.stderr


def test_a_chain_of_jobs(login: Login, run_file: Path) -> None:
    login.site(requeue=False)
    done = login("submit", run_file, "--run-dir", "out", "--set", "slurm.chain=3")
    assert done.returncode == 0, done.stderr
    assert record(login.folder / "out")["chain"] == ["7", "8", "9"]
    scripts = [login.folder / "out" / "slurm" / "submitit" / f"{job}_submission.sh" for job in (7, 8, 9)]
    waits = [line for script in scripts for line in script.read_text().splitlines() if "--dependency" in line]
    assert waits == ["#SBATCH --dependency=afterany:7", "#SBATCH --dependency=afterany:8"]


def test_no_secret_of_the_shell_gets_into_what_is_written(login: Login, run_file: Path) -> None:
    env = {"WANDB_API_KEY": "s3cr3t-value", "EBBTIDE_API_KEY": "s3cr3t-value"}
    done = ebbtide_with(login.programs, "submit", str(run_file), "--run-dir", "out", cwd=login.folder, env=env)
    assert done.returncode == 0, done.stderr
    files = [path for path in (login.folder / "out").rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if b"s3cr3t-value" in path.read_bytes()] == []


MISTAKES: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "unknown partition": (
        {"partition": "mian"},
        [],
        "trainers: found the partition mian; wanted one of main, short: did you mean main?",
    ),
    "time over the partition's": (
        {"partition": "short"},
        ["slurm.time=00:30:00"],
        "trainers: found a time limit of 00:30:00; wanted at most 00:10:00, the limit of partition short: lower "
        "slurm.time, for a run goes on in the next job, or choose another partition",
    ),
    "more GPUs than the partition's nodes have": (
        {},
        ["slurm.components=[{role: trainers, gpus_per_node: 4}]"],
        "trainers: found 4 GPUs per node; wanted at most 2, the most of partition main: choose another partition, or "
        "fewer GPUs per node and more nodes",
    ),
    "more nodes than there are": (
        {},
        ["placement.num_nodes=8"],
        "trainers: found 8 nodes with 1 CPU; wanted at most 4, all such nodes of partition main: ask for fewer or "
        "smaller nodes, or choose another partition",
    ),
    "run directory elsewhere": (
        {"shared_filesystems": ["/lustre"]},
        [],
        "run directory: found DIR/out; wanted a folder in /lustre (shared_filesystems in the site file): choose "
        "another --run-dir, or set runs_dir in the run file",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_said_before_submission(case: str, login: Login, run_file: Path) -> None:
    site, settings, says = MISTAKES[case]
    login.site(**site)
    options = [word for text in settings for word in ("--set", text)]
    done = login("submit", run_file, "--run-dir", "out", *options)
    assert done.returncode == 2
    said = done.stderr.replace(str(login.folder), "DIR")
    assert said == f"tiny cannot be submitted, 1 mistake:\n  {says}\n"
    assert login.sent() == []
    assert not (login.folder / "out").exists()


def test_the_page_documents_what_the_cluster_shows() -> None:
    page = (ROOT / "docs" / "slurm-mistakes.md").read_text(encoding="utf-8")
    shown = [says.replace("DIR/out", "/home/you/runs/a") for _, _, says in MISTAKES.values()]
    assert [says for says in shown if f"```text\n{says}\n```" not in page] == []


def test_sbatch_that_refuses_leaves_no_run_directory(login: Login, run_file: Path) -> None:
    stand_in(login.programs, "sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    done = login("submit", run_file, "--run-dir", "out")
    assert done.returncode == 1
    assert "invalid partition specified" in done.stderr
    assert "wanted a job id: name a partition of this cluster in the site file" in done.stderr
    assert not (login.folder / "out").exists()


def test_what_sbatch_took_of_a_chain_is_known_when_it_refuses_the_rest(login: Login, run_file: Path) -> None:
    login.site(requeue=False)
    refuse = '((id < 9)) || { echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; }'
    number, answer = (SBATCH % login.programs).splitlines()
    stand_in(login.programs, "sbatch", f"{number}\n{refuse}\n{answer}")
    done = login("submit", run_file, "--run-dir", "out", "--set", "slurm.chain=3")
    assert done.returncode == 1
    assert "submitted before it: job 7, 8; `ebbtide cancel " in done.stderr
    assert record(login.folder / "out")["chain"] == ["7", "8"]
    assert (login.folder / "out" / "run.yaml").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "found no run; wanted one: give either a run file or --resume RUN_DIR"),
        (("run.yaml", "--resume", "out"), "found a run file and a run directory; wanted one"),
        (("--resume", "nowhere"), "nowhere: found no run.yaml in it; wanted a run directory"),
        (("--resume", "out", "--set", "train.lr=1"), "--set train.lr=1: found a key outside slurm"),
        (("--resume", "out", "--run-dir", "x"), "found --run-dir and --resume"),
    ],
)
def test_wrong_use(words: tuple[str, ...], message: str, login: Login, run_file: Path) -> None:
    login("submit", run_file, "--run-dir", "out", "--dry-run")
    done = login("submit", *words)
    assert done.returncode == 2
    assert message in done.stderr


def test_resume_remembers_the_earlier_jobs_and_takes_keys_of_slurm(login: Login, run_file: Path) -> None:
    login("submit", run_file, "--run-dir", "out")
    squeue(login, "7|CANCELLED|None|")
    done = login("submit", "--resume", "out", "--set", "slurm.time=00:20:00")
    assert done.returncode == 0, done.stderr
    assert record(login.folder / "out")["earlier"] == ["7"]
    assert "time: 00:20:00" in (login.folder / "out" / "run.yaml").read_text()


def test_a_live_run_is_not_submitted_again(login: Login, run_file: Path) -> None:
    login("submit", run_file, "--run-dir", "out")
    squeue(login, "7|PENDING|Priority|")
    done = login("submit", "--resume", "out")
    assert done.returncode == 2
    assert "out: found a run that is pending (job 7); wanted a run that has stopped" in done.stderr
    assert len(login.sent()) == 1


def test_sbatch_prints_a_script_and_nothing_else(login: Login, run_file: Path) -> None:
    done = login("sbatch", run_file, "--run-dir", "a b")
    assert done.returncode == 0, done.stderr
    folder = login.folder / "a b"
    assert done.stdout == (folder / "slurm" / "job.sbatch").read_text()
    assert done.stdout.startswith("#!/bin/bash")
    assert "launchers.node.slurm_task" in done.stdout
    assert f"run directory: {folder}" in done.stderr
    assert (folder / "site.yaml").exists()
    assert subprocess.run(["bash", "-n"], input=done.stdout, text=True).returncode == 0
    assert login.sent() == []


def test_a_sweep_is_one_array(login: Login, run_file: Path) -> None:
    done = login("sweep", run_file, "--grid", "train.lr=1e-3,1e-4", "--sweep-dir", "rates", "--limit", "1")
    assert done.returncode == 0, done.stderr
    folder = login.folder / "rates"
    assert "job array: 7, 2 runs" in done.stdout
    assert len(login.sent()) == 1
    assert "#SBATCH --array=0-1%1" in (folder / "slurm" / "job.sbatch").read_text()
    rates = [yaml.safe_load((folder / name / "run.yaml").read_text())["train"]["lr"] for name in ("000", "001")]
    assert rates == [1e-3, 1e-4]
    assert record(folder / "001")["job_id"] == "7_1"
    stand_in(
        login.programs, "squeue", "printf '7_0|RUNNING|None|n1|1|2|1:00|0|0|\\n7_1|PENDING|Priority||1|2|1:00|0|0|\\n'"
    )
    table = login("status", "rates").stdout
    assert "1e-3" in table
    assert "starting" in table
    assert "Priority" in table
    stand_in(login.programs, "squeue", "exit 0")
    assert "job 7: ended" in login("cancel", "rates").stdout
    assert "scancel 7" in calls(login.programs)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("train.lr=a,b", "train.lr: found 'a'"),
        ("train.lrr=1,2", "did you mean lr?"),
        ("placement.num_nodes=1,2", "found points that ask Slurm for different components; wanted a job array"),
        ("slurm.time=00:05:00,00:06:00", "found points that ask Slurm for different time minutes"),
        ("rollout.seed=1,2,3,4", "found 4 runs; wanted at most 3, the cluster's limit: split the sweep"),
        ("train.lr", "wanted KEY=VALUE,VALUE"),
    ],
)
def test_a_grid_that_makes_no_sweep(grid: str, message: str, login: Login, run_file: Path) -> None:
    done = login("sweep", run_file, "--grid", grid, "--sweep-dir", "rates")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (login.folder / "rates").exists()


def test_doctor_writes_a_first_site_file_and_checks_it(login: Login) -> None:
    done = login("doctor", "--write", "new.yaml")
    assert done.returncode == 0, done.stderr
    assert "main (default)" in done.stderr
    site = yaml.safe_load((login.folder / "new.yaml").read_text())
    assert (site["partition"], site["gpus_per_node"]) == ("main", 2)
    assert login("doctor").stdout == (login.folder / "new.yaml").read_text()
    done = login("doctor", "--site", "new.yaml")
    assert "new.yaml fits this cluster" in done.stdout
    assert "shared_filesystems: none named" in done.stderr
    assert "found new.yaml; wanted a new file" in login("doctor", "--write", "new.yaml").stderr
    login.site(partition="mian")
    done = login("doctor", "--site", "site.yaml")
    assert done.returncode == 2
    assert "did you mean main?" in done.stderr


def test_status_of_all_runs(login: Login, run_file: Path) -> None:
    assert "found no runs" in login("status").stderr
    for name in ("a", "b"):
        login("submit", run_file, "--run-dir", f"runs/{name}")
    stand_in(
        login.programs, "squeue", "printf '7|PENDING|Priority||1|2|1:00|0|0|\\n8|RUNNING|None|n1|1|2|1:00|0|0|\\n'"
    )
    lines = login("status").stdout.splitlines()
    assert any(line.split()[:2] == ["a", "pending"] and "Priority" in line for line in lines)
    assert any(line.split()[:2] == ["b", "starting"] for line in lines)
