"""Every mistake in the slurm section is reported with its line, and documented.

`python tests/core/config/test_slurm_mistakes.py` prints what docs/slurm-mistakes.md has to hold.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.checks import check_run_file
from core.config import RunFileError
from tests.support.good_run import RUN_FILE, write_run

TABLE = yaml.safe_load(Path(__file__).with_name("slurm_mistakes.yaml").read_text(encoding="utf-8"))
PAGE = Path(__file__).parents[3] / "docs" / "slurm-mistakes.md"
RUN_LINES = len(RUN_FILE.splitlines()) + 1  # with the line `slurm:`


def documented() -> str:
    """All mistakes as the page shows them."""
    parts = []
    for case in TABLE:
        section = "slurm:\n" + textwrap.indent(case["slurm"], "  ")
        beside = f" (with `--set {' --set '.join(case['set'])}`)" if "set" in case else ""
        title = case["id"][0].upper() + case["id"][1:]
        parts.append(f"{title}{beside}:\n\n```yaml\n{section}```\n```text\n{case['says']}```\n")
    return "\n".join(parts)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in TABLE])
def test_a_mistake_in_the_slurm_section_is_reported_with_its_line(case: dict[str, Any], tmp_path: Path) -> None:
    path = write_run(tmp_path, RUN_FILE + "slurm:\n" + textwrap.indent(case["slurm"], "  "))
    with pytest.raises(RunFileError) as caught:
        check_run_file(path, case.get("set", ()))
    (problem,) = caught.value.mistakes
    assert problem.line is not None
    assert problem.line > RUN_LINES - 1
    assert str(problem).partition(": ")[2] == case["says"].rstrip("\n")


def test_the_table_has_more_than_ten_mistakes() -> None:
    assert len({case["id"] for case in TABLE}) == len(TABLE) > 10


def test_the_page_documents_every_mistake() -> None:
    assert documented() in PAGE.read_text(encoding="utf-8"), "put the output of this file there"


if __name__ == "__main__":
    print(documented(), end="")
