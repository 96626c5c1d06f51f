"""Engines in fp8 on the toy task: every run file is without mistakes, and the model's sizes are taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bench.digit_task import write_task
from bench.mismatch import Name
from bench.mismatch_gpu import KIND, SETTINGS, SIZES, wanted, written
from core.checks import check_run_file

READ = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", wanted(READ, [1]), ids=str)
def test_each_is_a_run_file_without_mistakes(name: Name, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(written(name, READ, write_task(tmp_path / "task", 1, KIND, **SIZES))))
    placement = check_run_file(file).placement
    assert (placement.engine_weights == "fp8") == (name.case == "fp8")
