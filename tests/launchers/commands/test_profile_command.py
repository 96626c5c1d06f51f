"""What `ebbtide profile` refuses, and the run file that it makes; nothing is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.checks import check_run_file
from core.config import dump_run_file, load_run_file
from core.run_dir.run_directory import RunDirectory
from launchers.cli import app
from launchers.commands.profile import _profiling
from tests.runs.test_sft import write_sft
from tests.support.tiny_runs import write_run


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ((), "--step: found 4; wanted 0 to 3, as rollout.num_rollout is 4: choose one of these"),
        (("rollout.num_rollout=2",), "--step: found 4; wanted 0 to 1"),
        (
            ("placement.trainers=none", "eval.sets.one.path=data.jsonl"),
            "placement.trainers: found none; wanted a run with steps",
        ),
    ],
    ids=["too late", "shorter run", "no trainers"],
)
def test_a_step_that_never_comes_is_refused(tmp_path: Path, changes: tuple[str, ...], said: str) -> None:
    run_file, out = write_run(tmp_path), tmp_path / "out"
    settings = [word for change in changes for word in ("--set", change)]
    done = CliRunner().invoke(
        app, ["profile", str(run_file), "--step", "4", "--run-dir", str(out), "--local", *settings]
    )
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert not out.exists()


@pytest.mark.parametrize("write", [write_run, write_sft], ids=["sampled", "from rows"])
def test_the_run_file_of_the_trace_holds_and_changes_nothing_that_a_step_depends_on(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    run_file = write(tmp_path)
    config, directory = load_run_file(run_file), RunDirectory(tmp_path / "out")
    dump_run_file(_profiling(config, directory, 2), tmp_path / "profile.yaml")
    made = check_run_file(tmp_path / "profile.yaml")
    sections = ("model", "data", "rollout", "reward", "algorithm", "train")
    assert [getattr(made, name) for name in sections] == [getattr(config, name) for name in sections]
    assert made.placement.schedule_options["traced"] == config.placement.schedule == "in_turns"
    same = {"schedule": "in_turns", "schedule_options": {}}
    assert made.placement.model_copy(update=same) == config.placement
    assert (made.checkpoint.save_hf, made.eval.sets, made.logging.sinks) == ("off", {}, ())
