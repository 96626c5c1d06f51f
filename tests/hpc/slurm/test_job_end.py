"""The end of a job, from what scontrol says."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from hpc.slurm.job_end import ask_job_end, job_of, parse_job_end

FACTS = "JobId=7 StartTime=2026-01-02T03:00:00 EndTime=2026-01-02T04:00:00 Deadline=N/A"
END = datetime(2026, 1, 2, 4).timestamp()


@pytest.mark.parametrize(
    ("facts", "end"),
    [
        (FACTS, END),
        (f"{FACTS}\n{FACTS.replace('T04', 'T05')}", END),
        (FACTS.replace("2026-01-02T04:00:00", "Unknown"), None),
        ("", None),
    ],
    ids=["one", "components", "no limit", "nothing"],
)
def test_the_end_in_slurms_words(facts: str, end: float | None) -> None:
    assert parse_job_end(facts) == end


def test_scontrol_is_asked_and_may_be_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/bash\n[[ "$*" == "show job --oneliner 7" ]] && echo "{FACTS}"\n')
    scontrol.chmod(0o755)
    assert ask_job_end("7") == END
    assert ask_job_end("8") is None


def test_the_job_of_a_process_is_the_first_component() -> None:
    assert job_of({"SLURM_JOB_ID": "8", "SLURM_JOB_ID_HET_GROUP_0": "7"}) == "7"
    assert job_of({"SLURM_JOB_ID": "8"}) == "8"
    assert job_of({}) is None
