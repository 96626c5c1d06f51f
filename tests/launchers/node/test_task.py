"""The task of the first node: why it thinks that Slurm warns it, and the verdict that it leaves. Agents are doubles."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.processes.rendezvous import Address
from core.run_dir.run_directory import RunDirectory
from launchers.attempts.job_record import JobRecord
from launchers.attempts.outcome import Outcome
from launchers.node import task
from launchers.node.task import EARLY_S, SlurmTask, TaskError, run_task

RUN_FILE = """\
name: tiny
model: {path: m}
data: {path: d}
rollout: {num_rollout: 1, rollout_batch_size: 1}
train: {global_batch_size: 8}
placement: {device: cpu}
slurm:
  signal_s: 200
  components: [{role: trainers}, {role: rewards}]
"""
SITE_FILE = "interface: lo\nrequeue: false\n"
STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
HET = {
    **{"SLURM_JOB_ID": "8", "SLURM_HET_SIZE": "2", **STEP},
    **{"SLURM_JOB_ID_HET_GROUP_0": "8", "SLURM_JOB_NODELIST_HET_GROUP_0": "n1", "SLURM_NTASKS_HET_GROUP_0": "1"},
    **{"SLURM_JOB_ID_HET_GROUP_1": "9", "SLURM_JOB_NODELIST_HET_GROUP_1": "n2", "SLURM_NTASKS_HET_GROUP_1": "1"},
}
ONE = {"SLURM_JOB_ID": "8", "SLURM_JOB_NODELIST": "n[1-2]", **STEP}


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a task changes of its process, this one does without."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
    before, root = {number: signal.getsignal(number) for number in numbers}, logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(task, "adopt_orphans", lambda: None)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def led(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, str, str]]:
    """Lead an attempt of job 8; its agent ends as told, else it pauses. Reason to pause, outcome and verdict."""
    (tmp_path / "run.yaml").write_text(RUN_FILE)
    (tmp_path / "site.yaml").write_text(SITE_FILE)

    def lead(environment: dict[str, str], outcome: Outcome | None = None, job_end: float | None = None) -> Any:
        reasons: list[str] = []

        def agent(_: Any, seat: Any, reason: Callable[[], str], call: Any, conclude: Any) -> Outcome:
            reasons.append(reason())
            call(Address("127.0.0.1", 1))
            ended = outcome or Outcome("timeout" if reason() == "timeout" else "preempted")
            conclude(ended)
            return ended

        monkeypatch.setattr(task, "run_agent", agent)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        if job_end is not None:
            monkeypatch.setenv("EBBTIDE_JOB_END", str(job_end))
        result = run_task(tmp_path)
        return reasons[0], result["outcome"], (tmp_path / "slurm" / "8" / "0" / "verdict").read_text()

    return lead


@pytest.mark.parametrize(
    ("seconds_left", "reason"),
    [(200 + EARLY_S - 20, "timeout"), (5, "timeout"), (200 + EARLY_S + 20, "preempted"), (None, "preempted")],
)
def test_a_warning_near_the_time_limit_is_a_timeout_and_any_other_a_preemption(
    led: Callable[..., Any], seconds_left: float | None, reason: str
) -> None:
    """Near is `slurm.signal_s` and as much again as Slurm may be early; a job may have no end that is known."""
    job_end = None if seconds_left is None else time.time() + seconds_left
    assert led(ONE, job_end=job_end)[:2] == (reason, reason)


def test_the_leader_asks_for_a_limit_that_was_changed(led: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowered, it is a timeout; raised, the warning comes from somebody who wants the nodes."""
    for known, now, reason in ((5000, 100, "timeout"), (100, 5000, "preempted")):
        monkeypatch.setattr(task, "ask_job_end", lambda job, now=now: time.time() + now if job == "8" else None)
        assert led(ONE, job_end=time.time() + known)[0] == reason


@pytest.mark.parametrize(
    ("environment", "following"),
    [(ONE, "10 12"), (HET, "10+0 10+1 12+0 12+1")],
    ids=["ordinary", "heterogeneous"],
)
def test_the_jobs_that_follow_in_a_chain_are_named_by_their_components(
    led: Callable[..., Any], tmp_path: Path, environment: dict[str, str], following: str
) -> None:
    """They leave out the nodes that failed, so each component has to be named as scontrol updates it."""
    JobRecord("6", chain=("6", "8", "10", "12")).write(RunDirectory(tmp_path))
    lost = Outcome("node_failure", ("n2",), "not heard of")
    assert led(environment, lost)[2] == f"end\nn2\n{following}\n"


@pytest.mark.parametrize(
    "record", [None, JobRecord("8"), JobRecord("6", chain=("6", "8"))], ids=["no record", "alone", "last"]
)
def test_nothing_follows_a_job_that_is_alone_or_the_last(
    led: Callable[..., Any], tmp_path: Path, record: JobRecord | None
) -> None:
    if record is not None:
        record.write(RunDirectory(tmp_path))
    assert led(HET, Outcome("node_failure", ("n2",)))[2] == "end\nn2\n\n"


def test_a_requeue_is_asked_for_where_the_site_allows_it(led: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("interface: lo\n")
    assert led(ONE, Outcome("node_failure", ("n2",)))[2] == "requeue\nn2\n\n"


@pytest.mark.parametrize(
    "changes",
    [{"SLURM_NTASKS": "3"}, {"SLURM_JOB_NODELIST": "n1"}, {"SLURM_JOB_NODELIST": "n[1-3]", "SLURM_NTASKS": "3"}],
    ids=str,
)
def test_an_allocation_of_another_size_is_refused(led: Callable[..., Any], changes: dict[str, str]) -> None:
    with pytest.raises(TaskError, match="the run file describes 2 nodes with one task each"):
        led({**ONE, **changes})


@pytest.mark.parametrize(
    ("outcome", "raised"),
    [(Outcome("timeout"), SystemExit), (Outcome("preempted"), SystemExit), (Outcome("failed", cause="no"), TaskError)],
    ids=lambda value: getattr(value, "how", ""),
)
def test_what_submitit_sees_of_an_attempt_without_a_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outcome: Outcome, raised: type[BaseException]
) -> None:
    monkeypatch.setattr(task, "run_task", lambda _: {"outcome": outcome.how, "cause": outcome.cause})
    with pytest.raises(raised) as caught:
        SlurmTask(tmp_path)()
    if raised is SystemExit:
        assert caught.value.code == 0  # type: ignore[attr-defined]
    else:
        assert str(caught.value) == "failed: no"
