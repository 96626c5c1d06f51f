from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.config import dump_run_file, load_run_file
from core.run_dir.run_directory import RunDirectory
from launchers.attempts.attempt import locked
from launchers.cli import COMMANDS, app
from tests.support.histories import began, write_history
from tests.support.tiny_runs import write_run
from tests.support.waiting import COMMAND_S

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("cli"))


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("place", "code", "says"),
    [
        ("file", 2, "file: found a file; wanted a folder, or nothing"),
        ("file/run", 1, "file/run: found Not a directory; wanted a place that can be used"),
        (f"{'x' * 300}/run", 1, ": found File name too long; wanted a place that can be used"),
    ],
)
def test_a_place_that_cannot_be_used_is_told_in_a_line(
    place: str, code: int, says: str, run_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "launchers", "run", str(run_file), "--run-dir", str(tmp_path / place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=COMMAND_S)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_is_not_known_is_told_in_a_line() -> None:
    code, text = invoke("models", "qwen3-4")
    assert code == 2
    assert "found the model name 'qwen3-4'; wanted a name that `ebbtide models` lists: did you mean qwen3-4b?" in text


def test_version() -> None:
    assert invoke("--version") == (0, f"ebbtide {version('ebbtide')}\n")


@pytest.mark.parametrize("command", [module.__name__.rpartition(".")[2].replace("_", "-") for module in COMMANDS])
def test_help_has_an_example(command: str) -> None:
    code, text = invoke(command, "--help")
    assert code == 0
    assert f"Example: ebbtide {command}" in text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rollout.num_rollouts=3", "did you mean num_rollout?"),
        ("train.global_batch_size=7", "wanted rollout_batch_size 4 × n_samples_per_prompt 4 = 16"),
        ("placement.num_nodes=2", "found a run on 2 nodes; wanted 1, this machine"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_is_made(setting: str, message: str, run_file: Path) -> None:
    run_dir = run_file.parent / "never"
    code, text = invoke("run", str(run_file), "--run-dir", str(run_dir), "--set", setting)
    assert code == 2
    assert message in text
    assert not run_dir.exists()


def test_a_run_directory_in_use_is_not_overwritten(run_file: Path) -> None:
    code, text = invoke("run", str(run_file), "--run-dir", str(run_file.parent))
    assert code == 2
    assert "found something in it; wanted an empty folder: choose another --run-dir" in text
    assert "ebbtide resume" not in text  # it merely holds a run.yaml


def test_a_run_directory_in_use_can_be_gone_on_with(run_file: Path, tmp_path: Path) -> None:
    write_history(tmp_path / "out", [began(1, job=None)])
    code, text = invoke("run", str(run_file), "--run-dir", str(tmp_path / "out"))
    assert code == 2
    assert "ebbtide resume" in text


def test_resume_in_an_allocation_leaves_the_run_file_of_a_job_that_works_alone(
    run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job's next attempt reads it again, and has the nodes that it had."""
    directory = RunDirectory(tmp_path)
    write_history(tmp_path, [began(1, job="7")])
    dump_run_file(load_run_file(run_file), directory.run_file)
    before = directory.run_file.read_text()
    allocation = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_TASKS_PER_NODE": "1(x2)"}
    for name, value in allocation.items():
        monkeypatch.setenv(name, value)
    with locked(directory):
        code, text = invoke("resume", str(tmp_path))
    assert code == 2
    assert "is in use by another ebbtide process" in text
    assert directory.run_file.read_text() == before


def test_resume_of_a_folder_that_is_no_run(tmp_path: Path) -> None:
    code, text = invoke("resume", str(tmp_path))
    assert code == 2
    assert "found no run.yaml in it; wanted a run directory" in text


def test_resume_of_a_run_that_never_began(run_file: Path) -> None:
    code, text = invoke("resume", str(run_file.parent))
    assert code == 2
    assert "found a run.yaml and no ledger; wanted a run that has begun: begin one with `ebbtide run" in text


def test_resume_refuses_other_data_and_changes_nothing(run_file: Path, tmp_path: Path) -> None:
    directory = write_history(tmp_path, [began(1, job=None)])
    dump_run_file(load_run_file(run_file), directory.run_file)
    before = directory.run_file.read_text()
    code, text = invoke("resume", str(tmp_path), "--set", "rollout.num_rollout=9", "--set", "data.shuffle=false")
    assert code == 2
    assert "--set data.shuffle=false: data.shuffle: found false; wanted the run's own true" in text
    assert "num_rollout" not in text
    assert directory.run_file.read_text() == before


def test_every_example_passes_the_checks() -> None:
    from core.checks import check_run_file

    examples = sorted((ROOT / "examples").glob("*.yaml"))
    assert examples
    for example in examples:
        check_run_file(example)
