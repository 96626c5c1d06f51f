from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hpc.slurm.commands import SlurmError, remedy_for, run_command, sbatch_command
from tests.support.stand_in_commands import first_on_path


def test_output_of_a_command() -> None:
    assert run_command([sys.executable, "-c", "print('hello')"]) == "hello\n"


def test_variables_are_added_and_listing_defaults_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUEUE_STATES", "PENDING")
    monkeypatch.setenv("SBATCH_ACCOUNT", "physics")
    code = "import os; print(os.environ.get('SQUEUE_STATES'), os.environ['SBATCH_ACCOUNT'], os.environ['MINE'])"
    assert run_command([sys.executable, "-c", code], env={"MINE": "1"}) == "None physics 1\n"


def test_options_in_variables_do_not_reach_sbatch_and_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Slurm would have them override the script's #SBATCH lines."""
    first_on_path(tmp_path, monkeypatch, sbatch='echo "$@ ${SBATCH_PARTITION-none} ${SBATCH_NODELIST-none} $MINE"')
    for name, value in {"SBATCH_PARTITION": "debug", "SBATCH_NODELIST": "n1", "MINE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert run_command(sbatch_command("--parsable", "job.sbatch")) == "--parsable job.sbatch none none 1\n"
    assert "SBATCH_NODELIST, SBATCH_PARTITION: not passed to sbatch" in caplog.text


def test_missing_command() -> None:
    with pytest.raises(SlurmError, match="no-such-command: found no such command; wanted an answer: use a login node"):
        run_command(["no-such-command"])


def test_command_that_hangs() -> None:
    with pytest.raises(SlurmError, match="no answer within 0 s") as caught:
        run_command([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.2)
    assert caught.value.exit_code is None


def test_failing_command_tells_its_message_and_a_remedy() -> None:
    code = "import sys; sys.exit('squeue: error: Unable to contact slurm controller (connect failure)')"
    with pytest.raises(SlurmError, match=r"exit code 1: squeue: error.*connect failure\); .* wait and try again"):
        run_command([sys.executable, "-c", code])


def test_every_message_gets_a_remedy() -> None:
    assert "sinfo" in remedy_for("sbatch: error: invalid partition specified: gpuu")
    assert remedy_for("what nobody has seen") == "see Slurm's message; its documentation explains the options"


def test_a_missing_sbatch_is_named_and_not_the_program_that_clears_its_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "env").symlink_to("/usr/bin/env")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match="sbatch: found no such command; wanted an answer: use a login node"):
        run_command(sbatch_command("job.sbatch"))
