"""What a run inside an allocation says when srun fails."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from core.run_directory import RunDirectory
from launchers import allocation_run, foreground_run
from launchers.allocation_run import run_in_allocation
from launchers.display import Display
from launchers.failure import Failure, write_record

ALLOCATION = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "SLURM_TASKS_PER_NODE": "1", "EBBTIDE_JOB_END": "9"}


def said(directory: RunDirectory, command: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """By a run whose srun is this shell command; an attempt before it has failed of its own."""
    earlier = directory.attempt(1)
    write_record(earlier, Failure("trainer", "0", "update step=1", "ValueError: of yesterday", 8, "n1", exit_code=1))
    (earlier.parent / "latest").symlink_to("1")
    for name, value in ALLOCATION.items():
        monkeypatch.setenv(name, value)
    for module, name in ((allocation_run, "adopt_orphans"), (foreground_run, "kill_descendants")):
        monkeypatch.setattr(module, name, lambda: None)  # of this process: a cluster may be among them
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
    Failure("trainer", "0", "update step=2", "ValueError: of today", 8, "n1", exit_code=1).write(record)
    folder = RunDirectory(tmp_path).attempt(2)
    text = said(RunDirectory(tmp_path), f"mkdir {folder} && cp {record} {folder}/failure.json; exit 1", monkeypatch)
    assert "of today" in text
    assert f"all logs: {folder}" in text
