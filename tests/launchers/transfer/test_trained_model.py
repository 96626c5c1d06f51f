"""Where the model of a run lies after some steps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.mistake import Wrong
from core.config import load_run_file
from core.run_dir.run_directory import RunDirectory
from launchers.transfer.trained_model import TrainedModel, trained_model
from tests.support.good_run import write_run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Of four steps: checkpoints after 3 and 4, models after 2 and at the end."""
    run = RunDirectory(tmp_path / "run")
    for folder in (run.checkpoint(3), run.checkpoint(4), run.model_after(2), run.hf_model):
        folder.mkdir(parents=True)
    os.utime(run.checkpoint(4), (100, 100))
    os.utime(run.hf_model, (101, 101))
    return run


def found(run: RunDirectory, step: int | None) -> TrainedModel:
    return trained_model(run, load_run_file(write_run(run.path)), step)


def test_a_model_that_is_written_already_is_taken(run: RunDirectory) -> None:
    assert found(run, 2) == TrainedModel(2, str(run.model_after(2)))
    assert found(run, 3) == TrainedModel(3, None)
    assert found(run, 4) == found(run, None) == TrainedModel(4, str(run.hf_model))
    before = found(run, 0)
    assert before.path is not None
    assert before.path.endswith("/model")


def test_a_final_model_that_is_older_than_the_checkpoint_is_not_of_its_step(run: RunDirectory) -> None:
    os.utime(run.hf_model, (99, 99))
    assert found(run, None) == TrainedModel(4, None)


def test_a_step_without_a_model_is_refused_with_those_that_there_are(run: RunDirectory) -> None:
    with pytest.raises(Wrong, match=r"after 1 steps; wanted one that is there: 0, 2, 3, 4: choose one of these"):
        found(run, 1)
