"""Epochs in a run file: how many steps they are, and what is said where both are given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.checks import check_run_file
from core.config import RunConfig, RunFileError, dump_run_file, load_run_file
from tests.support.good_run import RUN_FILE, write_run

EPOCHS = RUN_FILE.replace("num_rollout: 4", "num_epoch: 3")
FILTERED = ["rollout.filter=nonzero_std", "rollout.over_sampling_batch_size=5"]


def checked(folder: Path, text: str, *overrides: str) -> RunConfig:
    path = write_run(folder, text)
    rows = [json.dumps({"prompt": f"{number} + 1 =", "label": str(number + 1)}) for number in range(11)]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    return check_run_file(path, overrides)


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        ([], 16),  # 33 rows, 2 per step
        (["rollout.num_epoch=1"], 5),
        (["data.size=4"], 6),
        (FILTERED, 6),  # 5 per step
        ([*FILTERED, "rollout.carry_over_tokens=8", "rollout.carry_over_steps=4"], 16),
        (["rollout.num_rollout=7"], 7),
    ],
    ids=["rows", "one epoch", "the first rows", "a filter", "carry-over", "steps by an override"],
)
def test_epochs_are_steps_once_the_rows_are_counted(tmp_path: Path, overrides: list[str], steps: int) -> None:
    config = checked(tmp_path, EPOCHS, *overrides)
    assert (config.rollout.num_rollout, config.rollout.num_epoch) == (steps, None)
    dump_run_file(config, tmp_path / "resolved.yaml")
    assert load_run_file(tmp_path / "resolved.yaml") == config


def test_epochs_by_an_override_take_the_place_of_steps(tmp_path: Path) -> None:
    assert checked(tmp_path, RUN_FILE, "rollout.num_epoch=2").rollout.num_rollout == 11


def test_rules_see_the_steps(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match=r"at most the 16 optimiser steps of the run \(num_rollout 16"):
        checked(tmp_path, EPOCHS, "train.lr_warmup_steps=17")


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        (
            RUN_FILE.replace("num_rollout: 4", "num_rollout: 4\n  num_epoch: 3"),
            [],
            "line 9: rollout.num_epoch: found 3, beside num_rollout 4; wanted one of the two: remove the other",
        ),
        (
            RUN_FILE,
            ["rollout.num_epoch=3", "rollout.num_rollout=2"],
            "--set rollout.num_epoch=3: rollout.num_epoch: found 3, beside num_rollout 2; wanted one of the two",
        ),
        (RUN_FILE.replace("  num_rollout: 4\n", ""), [], "rollout.num_rollout: found nothing; wanted a whole number"),
        (EPOCHS.replace("num_epoch: 3", "num_epoch: 0"), [], "rollout.num_epoch: found 0; wanted a whole number > 0"),
        (EPOCHS.replace("path: rows.jsonl", "path: none.jsonl", 1), [], "data.path: found"),
    ],
    ids=["both in the file", "both by overrides", "none", "no number", "rows that are not there"],
)
def test_what_is_said_of_others(tmp_path: Path, text: str, overrides: list[str], says: str) -> None:
    with pytest.raises(RunFileError) as error:
        checked(tmp_path, text, *overrides)
    assert says in str(error.value)
    assert len(error.value.mistakes) == 1
