"""A run inside an allocation: what it asks of Slurm, and what it says when srun fails."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import typer
from rich.console import Console

from core.run_dir.moment import Moment
from core.run_dir.run_directory import RunDirectory
from hpc.site.files import Site, dump_site
from hpc.slurm.allocation import Allocation
from hpc.slurm.options import SRUN_OPTIONS
from launchers.attempts.failure import Failure, write_record
from launchers.commands.foreground import current_allocation
from launchers.foreground import allocation_run
from launchers.foreground.allocation_run import run_in_allocation
from launchers.show.display import Display
from tests.support.command_stand_ins import ebbtide_with
from tests.support.descendants import spare_descendants
from tests.support.good_run import RUN_FILE, write_run
from tests.support.stand_in_commands import calls, first_on_path, stand_in

ALLOCATION = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "SLURM_TASKS_PER_NODE": "1", "EBBTIDE_JOB_END": "9"}


def said(directory: RunDirectory, command: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """By a run whose srun is this shell command; an attempt before it has failed of its own."""
    earlier = directory.attempt(1)
    yesterday = Failure("trainer", "0", Moment("update", 1), "ValueError: of yesterday", 8, "n1", exit_code=1)
    write_record(earlier, yesterday)
    (earlier.parent / "latest").symlink_to("1")
    for name, value in ALLOCATION.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(allocation_run, "adopt_orphans", lambda: None)  # of this process
    spare_descendants(monkeypatch)
    monkeypatch.setattr(allocation_run, "srun_command", lambda *_: ["sh", "-c", command])
    text = io.StringIO()
    assert run_in_allocation(directory, Display(Console(file=text, width=200))) == 1
    return text.getvalue()


def test_an_attempt_that_could_not_begin_is_not_told_as_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = said(RunDirectory(tmp_path), "echo 'srun: error: Unable to create step' >&2; exit 1", monkeypatch)
    assert "Unable to create step" in text
    assert "of yesterday" not in text
    assert f"all logs: {tmp_path}/slurm/7/" in text


def test_an_attempt_that_failed_is_told_by_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "record.json"
    Failure("trainer", "0", Moment("update", 2), "ValueError: of today", 8, "n1", exit_code=1).write(record)
    folder = RunDirectory(tmp_path).attempt(2)
    text = said(RunDirectory(tmp_path), f"mkdir {folder} && cp {record} {folder}/failure.json; exit 1", monkeypatch)
    assert "of today" in text
    assert f"all logs: {folder}" in text


TWO_NODES = Allocation(job_id="7", components=(("n1", "n2"),), tasks=(2,))
SITE = Site(srun={"mpi": "none", "overlap": ""})


def test_its_srun_has_the_options_of_a_job_script_and_of_the_site() -> None:
    words = allocation_run.srun_command(Path("/runs/a"), TWO_NODES, SITE)
    assert words[:4] == ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"]
    assert words[4 : words.index("-u") - 1] == [*SRUN_OPTIONS, "--mpi=none", "--overlap"]


@pytest.mark.parametrize(
    ("facts", "end"),
    [("EndTime=2026-01-02T04:00:00", 1767326400.0), ("EndTime=Unknown", None), ("", None)],
)
def test_its_end_is_asked_as_a_job_script_does(
    facts: str, end: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_on_path(tmp_path, monkeypatch, scontrol=f"echo JobId=7 {facts} Deadline=N/A")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("TZ", "UTC")
    assert allocation_run._job_end(TWO_NODES) == end


def test_ebbtide_run_keeps_the_site_file_for_its_nodes(tmp_path: Path) -> None:
    dump_site(SITE.model_copy(update={"scratch": tmp_path}), tmp_path / "site.yaml")
    stand_in(tmp_path / "bin", "srun", "exit 1")
    run_file, env = write_run(tmp_path, RUN_FILE), {**ALLOCATION, "EBBTIDE_JOB_END": "9"}
    ebbtide_with(tmp_path / "bin", "run", str(run_file), "--run-dir", "out", cwd=tmp_path, env=env)
    assert (tmp_path / "out" / "site.yaml").read_text() == (tmp_path / "site.yaml").read_text()
    (call,) = calls(tmp_path / "bin")
    assert {"srun", "--mpi=none", "--overlap"} <= set(call.split())


def test_an_allocation_without_srun_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**ALLOCATION, "PATH": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    assert current_allocation(local=True) is None
    with pytest.raises(typer.Exit) as ended:
        current_allocation(local=False)
    assert ended.value.exit_code == 2
    said = capsys.readouterr().err
    assert "srun: found the allocation 7, and no srun on PATH; wanted Slurm's" in said
    assert "--local" in said
    stand_in(tmp_path, "srun", "true")
    assert current_allocation(local=False) is not None
