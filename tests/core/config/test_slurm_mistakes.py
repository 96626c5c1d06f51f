from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from good_run import RUN_FILE, write_run

from core.config import RunFileError, check_run_file

TABLE = yaml.safe_load(Path(__file__).with_name("slurm_mistakes.yaml").read_text(encoding="utf-8"))
RUN_LINES = len(RUN_FILE.splitlines()) + 1  # with the line `slurm:`


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in TABLE])
def test_a_mistake_in_the_slurm_section_is_reported_with_its_line(case: dict[str, Any], tmp_path: Path) -> None:
    path = write_run(tmp_path, RUN_FILE + "slurm:\n" + textwrap.indent(case["slurm"], "  "))
    with pytest.raises(RunFileError) as caught:
        check_run_file(path, case.get("set", ()))
    (problem,) = caught.value.problems
    assert problem.line is not None
    assert problem.line > RUN_LINES - 1
    assert str(problem).partition(": ")[2] == case["says"].rstrip("\n")


def test_the_table_has_more_than_ten_mistakes() -> None:
    assert len({case["id"] for case in TABLE}) == len(TABLE) > 10
