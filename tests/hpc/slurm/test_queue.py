"""Listings as Slurm 22.05 was seen to print them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from hpc.slurm.commands import SlurmError
from hpc.slurm.job_state import JobState, fold, read_exit_code, read_state, read_time_limit, read_wait_status
from hpc.slurm.queue import Poller, job_states, read_sacct, read_squeue
from tests.support.stand_in_commands import calls, first_on_path

HET = """9+0 |RUNNING |None |n1 |1795400799 |1795400979 |3:00 |1 |0 |
9+1 |RUNNING |None |n[2-3] |1795400799 |1795400979 |3:00 |1 |0 |
"""
ARRAY = """6_[2-3%2] |PENDING |JobArrayTaskLimit | |N/A |N/A |2:00 |0 |0 |
6_0 |FAILED |NonZeroExitCode |n1 |1795400799 |1795400800 |2:00 |0 |768 |
6_1 |COMPLETED |None |n2 |1795400799 |1795400800 |2:00 |0 |0 |
"""


def states(text: str, *job_ids: str) -> dict[str, JobState]:
    return {job_id: fold(rows) for job_id, rows in read_squeue(text, job_ids).items()}


def test_components_are_one_job() -> None:
    expected = JobState("RUNNING", None, ("n1", "n2", "n3"), 1795400799.0, 1795400979.0, 180, restarts=1)
    assert states(HET, "9") == {"9": expected}


def test_array_as_a_whole_and_by_element() -> None:
    found = states(ARRAY, "6", "6_0", "6_1", "6_3", "6_4", "60")
    assert {job_id: state.state for job_id, state in found.items()} == {
        "6": "PENDING",
        "6_0": "FAILED",
        "6_1": "COMPLETED",
        "6_3": "PENDING",
    }
    assert found["6_0"].exit_code == 3
    assert found["6_3"].reason == "JobArrayTaskLimit"


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ("COMPLETED COMPLETED", "COMPLETED"),
        ("COMPLETED FAILED", "FAILED"),
        ("CANCELLED FAILED COMPLETED", "FAILED"),
        ("FAILED RUNNING", "RUNNING"),
        ("NODE_FAIL PENDING", "PENDING"),
        ("NODE_FAIL CANCELLED", "NODE_FAIL"),
        ("PENDING COMPLETING", "COMPLETING"),
        ("COMPLETED NEWER_THAN_WE_ARE", "COMPLETED"),
    ],
)
def test_any_live_before_any_failed_before_completed(parts: str, whole: str) -> None:
    assert fold([JobState(state) for state in parts.split()]).state == whole


def test_folded_exit_code_and_reason_are_those_of_the_part_that_failed() -> None:
    parts = [JobState("COMPLETED", exit_code=0), JobState("FAILED", "NonZeroExitCode", exit_code=3)]
    assert (fold(parts).exit_code, fold(parts).reason) == (3, "NonZeroExitCode")


def test_sacct_rows() -> None:
    text = "9+0|CANCELLED by 0|None|n1|1795400799|1795400803|3|0:0\n9+1|NODE_FAIL|None|n2|Unknown|Unknown|3|0:9\nnoise"
    found = fold(read_sacct(text, ["9"])["9"])
    assert (found.state, found.nodes, found.time_limit_s, found.exit_code) == ("NODE_FAIL", ("n1", "n2"), 180, 137)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3:00", 180), ("1:02:03", 3723), ("2-00:00:00", 172800), ("UNLIMITED", None), ("", None), ("5", 5)],
)
def test_time_limits(text: str, seconds: int | None) -> None:
    assert read_time_limit(text) == seconds


def test_exit_codes() -> None:
    assert [read_wait_status(text) for text in ("0", "768", "9", "x")] == [0, 3, 137, None]
    assert [read_exit_code(text) for text in ("0:0", "3:0", "0:15", "")] == [0, 3, 143, None]


def test_state_words() -> None:
    assert [read_state(text) for text in ("CANCELLED by 0", "CANCELLED+", "")] == ["CANCELLED", "CANCELLED", "UNKNOWN"]


NO_SUCH_JOB = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"


def test_one_squeue_for_all_and_one_sacct_for_the_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows").write_text(HET)
    first_on_path(tmp_path, monkeypatch, squeue=f"cat {tmp_path}/rows", sacct="echo '7|TIMEOUT|None|n1|1|2|3|0:0'")
    found = job_states(["9", "7", "5", "9"])
    assert {job_id: state.state for job_id, state in found.items()} == {"9": "RUNNING", "7": "TIMEOUT", "5": "GONE"}
    squeue, sacct = calls(tmp_path)
    assert squeue.startswith("squeue ")
    assert sacct.startswith("sacct ")
    assert "--jobs=7,5" in sacct


def test_without_sacct_a_forgotten_job_is_gone_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disabled = "echo 'Slurm accounting storage is disabled' >&2; exit 1"
    first_on_path(tmp_path, monkeypatch, squeue=NO_SUCH_JOB, sacct=disabled)
    state = job_states(["7"])["7"]
    assert state.has_ended
    assert "sacct does not work: Slurm accounting storage is disabled" in str(state)


def test_job_that_only_sacct_believes_to_run_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first_on_path(tmp_path, monkeypatch, squeue=NO_SUCH_JOB, sacct="echo '7|RUNNING|None|n1|1|Unknown|3|0:0'")
    assert job_states(["7"])["7"].has_ended


def test_squeue_that_fails_is_an_error_not_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first_on_path(tmp_path, monkeypatch, squeue="echo 'Unable to contact slurm controller' >&2; exit 1", sacct="true")
    with pytest.raises(SlurmError, match="controller does not answer"):
        job_states(["7"])


@pytest.mark.parametrize("job_id", ["", "7+1", "-u root", "7;8"])
def test_only_job_ids_are_asked_for(job_id: str) -> None:
    with pytest.raises(ValueError, match="wanted job ids"):
        job_states([job_id])


class Clock:
    """A clock and a Slurm that answers what it is told to."""

    def __init__(self) -> None:
        self.now, self.calls, self.answer = 0.0, 0, JobState("PENDING")
        self.broken = False

    def ask(self, job_ids: Iterable[str]) -> dict[str, JobState]:
        self.calls += 1
        if self.broken:
            raise SlurmError("squeue", 1, "Socket timed out", "wait")
        return dict.fromkeys(job_ids, self.answer)


def test_poller_asks_every_ten_seconds_at_most() -> None:
    clock = Clock()
    poller = Poller(interval_s=0.1, ask=clock.ask, clock=lambda: clock.now)
    for _ in range(300):  # thirty seconds of impatience
        poller.state("7")
        clock.now += 0.1
    assert clock.calls == 3
    assert poller.state("7", now=True).state == "PENDING"
    assert clock.calls == 4


def test_poller_does_not_ask_for_jobs_that_have_ended() -> None:
    clock = Clock()
    poller = Poller(ask=clock.ask, clock=lambda: clock.now)
    clock.answer = JobState("COMPLETED")
    poller.state("7")
    clock.now = 100.0
    assert poller.state("7").state == "COMPLETED"
    assert clock.calls == 1


def test_poller_keeps_the_last_state_when_slurm_does_not_answer() -> None:
    clock = Clock()
    poller = Poller(ask=clock.ask, clock=lambda: clock.now)
    poller.state("7")
    clock.now, clock.broken = 20.0, True
    assert poller.state("7").state == "PENDING"
    assert "Socket timed out" in str(poller.error)
    assert "Socket timed out" in str(poller.state("8"))
    clock.now, clock.broken = 40.0, False
    assert poller.state("8").state == "PENDING"
    assert poller.error is None
