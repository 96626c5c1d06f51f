from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.run_directory import RunDirectory
from hpc.slurm.job_state import GONE, UNKNOWN, JobState
from hpc.slurm.queue import Poller
from launchers.attempts.job_record import JobRecord
from launchers.commands.status import _one
from launchers.show import run_status, status_table
from launchers.show.run_state import RunState
from launchers.show.run_status import Status, current_job, read_files, snapshot, status_of
from tests.support.histories import BEGAN, began, ended, lines, step, write_history

BEGIN = {"event": "begin", "time": BEGAN, "step": 0, "num_steps": 4}
ROLLOUT = {"event": "phase", "time": BEGAN + 2100, "phase": "rollout", "step": 1}
RECORD = JobRecord("7", submitted=BEGAN, earlier=("5",))
PENDING = JobState("PENDING", reason="Resources")
FIRST_START = JobState("RUNNING", nodes=("n1", "n2"), start=BEGAN + 999, end=BEGAN + 4600, restarts=0)
SECOND_START = JobState("RUNNING", nodes=("n1", "n3"), start=BEGAN + 1999, end=BEGAN + 5600, restarts=1)
ENDS = ("complete", "failed", "cancelled", "interrupted", "lost")
TIMEOUT = [began(1), ended(1, "timeout", steps_done=1)]
FAILED = [began(1), ended(1, "failed", cause="trainer 0: ValueError: no")]


@pytest.mark.parametrize(
    ("ledger", "job", "state", "reason"),
    [
        ([], None, "not started", ""),
        ([], PENDING, "pending", "Resources"),
        ([], FIRST_START, "starting", ""),
        ([began(1)], FIRST_START, "running", ""),
        (TIMEOUT, JobState("COMPLETING"), "stopping", ""),
        (TIMEOUT, FIRST_START, "stopping", ""),
        ([began(1)], JobState("PENDING", restarts=0), "running", ""),
        (TIMEOUT, JobState("PENDING", restarts=0), "stopping", ""),
        ([began(1)], JobState("PENDING", "BeginTime", restarts=1), "between attempts", "BeginTime"),
        ([began(1, job="5")], JobState("PENDING", "Priority", restarts=0), "between attempts", "Priority"),
        (TIMEOUT, JobState("PENDING", "BeginTime", restarts=1), "between attempts", "BeginTime"),
        (TIMEOUT, SECOND_START, "starting", ""),
        ([began(1)], SECOND_START, "starting", ""),
        ([*TIMEOUT, began(2, restart=1)], SECOND_START, "running", ""),
        ([*TIMEOUT, began(2, restart=1), ended(2, "complete")], JobState("RUNNING"), "complete", ""),
        (FAILED, JobState("FAILED", exit_code=1), "failed", "trainer 0: ValueError: no"),
        (TIMEOUT, JobState("FAILED"), "failed", "timeout"),
        ([], JobState("NODE_FAIL"), "failed", "Slurm: NODE_FAIL"),
        ([began(1)], JobState("OUT_OF_MEMORY", "oom"), "failed", "Slurm: OUT_OF_MEMORY (oom)"),
        ([], JobState("COMPLETED"), "failed", "see `ebbtide logs`"),
        ([began(1), ended(1, "interrupted")], JobState("CANCELLED"), "cancelled", ""),
        ([began(1)], JobState(GONE), "lost", ""),
        (FAILED, JobState(GONE), "failed", "trainer 0: ValueError: no"),
        ([began(1)], JobState(UNKNOWN, "squeue: no answer"), "unknown", "squeue: no answer"),
        ([began(1), ended(1, "complete")], JobState(UNKNOWN), "complete", ""),
    ],
)
def test_states_of_a_job(
    tmp_path: Path, ledger: Sequence[dict[str, Any]], job: JobState | None, state: str, reason: str
) -> None:
    directory = write_history(tmp_path, ledger, record=RECORD if job is not None else None)
    status = status_of(read_files(directory), {"7": job} if job is not None else {}, now=BEGAN + 2200)
    assert (status.state, status.reason) == (state, reason)
    assert type(status.state) is RunState
    assert status.live == (state not in ENDS)


def test_what_a_run_waits_for_before_it_begins_is_its_reason(tmp_path: Path) -> None:
    directory = write_history(tmp_path, [began(1)], record=RECORD)
    waits = directory.attempt(1) / "waits"
    waits.parent.mkdir(parents=True, exist_ok=True)
    waits.write_text("waiting for what all nodes report: /run: found 7 MiB free\n")
    status = status_of(read_files(directory), {"7": FIRST_START}, now=BEGAN + 2200)
    assert (status.state, status.reason) == ("running", "waiting for what all nodes report: /run: found 7 MiB free")


def test_a_job_that_no_nodes_fit_any_more_says_what_to_do(tmp_path: Path) -> None:
    directory = write_history(tmp_path, TIMEOUT, record=RECORD)
    status = status_of(read_files(directory), {"7": JobState("PENDING", "BadConstraints", restarts=1)}, BEGAN + 2200)
    assert status.state == "between attempts"
    assert status.reason.startswith("BadConstraints: no nodes are left that fit it; `ebbtide cancel` it")


def test_a_job_that_slurm_holds_says_what_to_do(tmp_path: Path) -> None:
    """It does so where a node would not take it, and where somebody asked for it."""
    directory = write_history(tmp_path, TIMEOUT, record=RECORD)
    for reason in ("launch failed requeued held", "JobHeldUser"):
        status = status_of(read_files(directory), {"7": JobState("PENDING", reason, restarts=1)}, BEGAN + 2200)
        assert status.reason == f"{reason}: Slurm holds it; `scontrol release` and its number let it go on"


class SlowPoller(Poller):
    """A controller that answers late; meanwhile the run does a step."""

    def __init__(self, meanwhile: Path) -> None:
        super().__init__()
        self.meanwhile = meanwhile

    def states(self, job_ids: Sequence[str]) -> dict[str, JobState]:
        lines(self.meanwhile, [BEGIN, step(0), step(1)])
        return dict.fromkeys(job_ids, FIRST_START)


def test_files_are_read_again_after_a_slow_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_status, "SLOW_S", -1.0)
    directory = write_history(tmp_path, [began(1)], [BEGIN, step(0)], record=RECORD)
    (status,) = snapshot([directory], SlowPoller(directory.progress), BEGAN + 2200)
    assert status.advance.steps_done == 2


def local(how: str | None, **more: Any) -> list[dict[str, Any]]:
    begin = began(1, job=None, host=socket.gethostname(), **more)
    return [begin, *([ended(1, how)] if how else [])]


@pytest.mark.parametrize("how", ["failed", "interrupted", "lost", "complete"])
def test_a_run_without_slurm_is_what_its_ledger_says(tmp_path: Path, how: str) -> None:
    assert status_of(read_files(write_history(tmp_path, local(how))), {}, BEGAN).state == how


def test_a_run_on_this_machine_lives_with_its_process(tmp_path: Path) -> None:
    now = time.time()
    elsewhere = write_history(tmp_path / "elsewhere", [began(1, job=None, pid=os.getpid())])
    assert status_of(read_files(elsewhere), {}, now).state == "lost"
    for began_at, state in ((now, "running"), (now - 1e9, "lost")):
        entry = {**began(1, job=None, host=socket.gethostname(), pid=os.getpid()), "began": began_at}
        assert status_of(read_files(write_history(tmp_path / state, [entry])), {}, now).state == state


@pytest.mark.parametrize(
    ("states", "wanted"),
    [
        ({}, "9"),
        ({"7": JobState("RUNNING"), "8": PENDING, "9": PENDING}, "7"),
        ({"7": JobState("COMPLETED"), "8": PENDING, "9": PENDING}, "8"),
        ({"7": JobState("FAILED"), "8": JobState("CANCELLED")}, "8"),
        ({"7": JobState("FAILED"), "8": JobState(UNKNOWN)}, "7"),
    ],
)
def test_the_job_of_a_chain_that_counts(states: dict[str, JobState], wanted: str) -> None:
    assert current_job(("7", "8", "9"), states) == wanted
    assert current_job((), states) is None


@pytest.mark.parametrize(
    ("record", "ledger", "job_ids"),
    [
        (None, [began(1, job="5")], ("5",)),
        (None, [began(1, job=None)], ()),
        (RECORD, [], ("7",)),
        (JobRecord("7", submitted=BEGAN), [began(1, job="5")], ("5",)),
        (JobRecord("7", submitted=BEGAN + 9999), [began(1, job="5")], ("7",)),
        (JobRecord("7", submitted=BEGAN, earlier=("5",)), [began(1, job="5")], ("7",)),
        (JobRecord("7_3", submitted=BEGAN), [began(1, job="11")], ("7_3",)),
        (JobRecord("7", chain=("7", "8"), submitted=BEGAN), [began(1, job="8")], ("7", "8")),
    ],
    ids=["by hand", "local", "fresh", "later by hand", "resubmitted", "resubmitted at once", "array", "chain"],
)
def test_which_jobs_belong_to_a_run(
    tmp_path: Path, record: JobRecord | None, ledger: list[dict[str, Any]], job_ids: tuple[str, ...]
) -> None:
    assert read_files(write_history(tmp_path, ledger, record=record)).job_ids == job_ids


def test_many_runs_cost_one_question(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def ask(job_ids: Any) -> dict[str, JobState]:
        asked.append(sorted(job_ids))
        return {job_id: PENDING for job_id in asked[-1]}

    runs = [write_history(tmp_path / str(i), record=JobRecord(str(i), submitted=BEGAN)) for i in range(3)]
    poller = Poller(ask=ask)
    assert [status.state for status in snapshot(runs, poller, BEGAN)] == ["pending"] * 3
    snapshot(runs, poller, BEGAN)
    assert asked == [["0", "1", "2"]]


def running(tmp_path: Path) -> Status:
    ledger = [*TIMEOUT, began(2, restart=1)]
    directory = write_history(tmp_path / "run[a]", ledger, [BEGIN, step(0), ROLLOUT], RECORD)
    return status_of(read_files(RunDirectory(directory.path)), {"7": SECOND_START}, BEGAN + 2200)


def shown(renderable: Any) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_an_evaluation_has_no_steps_to_count(tmp_path: Path) -> None:
    at_work = {**ROLLOUT, "phase": "eval", "step": 0}
    directory = write_history(tmp_path / "out", [began(1)], [{**BEGIN, "num_steps": 0}, at_work], RECORD)
    status = status_of(read_files(RunDirectory(directory.path)), {"7": FIRST_START}, BEGAN + 2200)
    text = shown(status_table.one(status))
    assert "eval for 0:01:40" in text
    assert "0 of 0" not in text
    assert "0/0" not in shown(status_table.many([status]))


@pytest.mark.parametrize(
    ("notes", "text"),
    [
        ({}, ""),
        ({0: "fa3 attention: why"}, "fa3 attention: why"),
        ({0: "fa3 attention: why", 1: "fa3 attention: why"}, "fa3 attention: why"),
        ({0: "fa3 attention: why", 2: "triton: old"}, "node 0: fa3 attention: why; node 2: triton: old"),
    ],
    ids=["on CPUs", "one node", "nodes alike", "nodes that differ"],
)
def test_what_engines_compute_with_is_shown(tmp_path: Path, notes: dict[int, str], text: str) -> None:
    status = running(tmp_path)
    folder = status.directory.attempt(2)
    folder.mkdir(parents=True)
    for node, note in notes.items():
        AttemptFolder(folder).engines_note(node).write_text(note)
    lines = shown(_one(status.directory, Poller())[0]).splitlines()
    assert [line.split(maxsplit=1)[1].strip() for line in lines if line.startswith("engines")] == (
        [text] if text else []
    )


def test_one_run_in_full(tmp_path: Path) -> None:
    text = shown(status_table.one(running(tmp_path)))
    for part in (
        "run[a]",
        "running job 7 on n1, n3",
        "1 of 4 done, rollout for 0:01:40",
        "16.6 s",
        "0.500",
        "0:56:40",
        "timeout",
        "n1, n2",
    ):
        assert part in text
    assert "reason" not in text


@pytest.mark.parametrize(
    ("ledger", "states", "said"),
    [
        ([began(1), ended(1, "interrupted")], {"7": JobState("CANCELLED")}, "go on  ebbtide submit --resume {path}"),
        ([began(1, job=None), ended(1, "failed")], {}, "go on  ebbtide resume {path}"),
        ([began(1), ended(1, "complete")], {"7": JobState("COMPLETED")}, None),
        ([began(1)], {"7": FIRST_START}, None),
    ],
    ids=["cancelled", "failed here", "complete", "at work"],
)
def test_a_run_that_has_stopped_says_how_to_go_on(
    ledger: list[dict[str, Any]], states: dict[str, JobState], said: str | None, tmp_path: Path
) -> None:
    directory = write_history(tmp_path / "a", ledger, [], RECORD if states else None)
    text = shown(status_table.one(status_of(read_files(directory), states, BEGAN + 2200)))
    line = next((" ".join(line.split()) for line in text.splitlines() if line.startswith("go on")), None)
    assert line == (" ".join(said.format(path=directory.path).split()) if said else None)


@pytest.mark.parametrize(("job", "how"), [(FIRST_START, "-"), (JobState("CANCELLED"), "lost"), (PENDING, "lost")])
def test_an_attempt_whose_end_nobody_wrote(job: JobState, how: str, tmp_path: Path) -> None:
    directory = write_history(tmp_path / "a", [began(1)], [], RECORD)
    text = shown(status_table.one(status_of(read_files(directory), {"7": replace(job, restarts=1)}, BEGAN + 2200)))
    line = next(line for line in text.splitlines() if line.split()[:1] == ["1"])
    assert line.split()[5] == how, text


def test_many_runs_in_a_table(tmp_path: Path) -> None:
    line = shown(status_table.many([running(tmp_path)])).splitlines()[-2]
    assert line.split() == [
        *("run[a]", "running", "2", "1/4", "rollout"),
        *("16.6", "s", "0.500", "0:56:40"),
    ]


NAMES = ("smollm2-arithmetic-20261128-160736", "short", "中文名字" * 8, "a\x1b[2J-name")


@pytest.mark.parametrize("width", [80, 100, 200])
def test_each_run_takes_one_line(tmp_path: Path, width: int) -> None:
    progress = [{**BEGIN, "num_steps": 300}, *(step(number) for number in range(120))]
    cause = "trainer 0 (pid 3 on n1) failed in update of step 3: ValueError: a cause of many words\nand lines"
    ledger = [*local("failed")[:1], ended(1, "failed", cause=cause)]
    directories = [write_history(tmp_path / name, ledger, progress) for name in NAMES]
    statuses = [status_of(read_files(directory), {}, BEGAN) for directory in directories]
    console = Console(width=width)
    with console.capture() as capture:
        console.print(status_table.many(statuses))
    lines = [line for line in capture.get().splitlines() if line.strip()]
    assert len(lines) == 2 + len(NAMES)
    assert all("failed" in line and "120/300" in line and "0.500" in line and "trainer 0" in line for line in lines[2:])
    assert lines[2].startswith(("smollm2", " smollm2"))
    assert "160736" in lines[2]
    assert "time left" not in lines[0]
    assert "\x1b" not in capture.get()


@pytest.mark.parametrize(
    ("text", "most", "cut"),
    [
        ("short", 9, "short"),
        ("0123456789", 10, "0123456789"),
        ("0123456789", 9, "0123…6789"),
        ("0123456789", 3, "0…9"),
        ("中文名字", 5, "中…字"),
    ],
)
def test_a_name_is_cut_in_its_middle(text: str, most: int, cut: str) -> None:
    assert status_table.cut_middle(text, most) == cut


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (-3, "0:00:00"), (3661, "1:01:01"), (90061, "1-1:01:01")]
)
def test_durations(seconds: float, text: str) -> None:
    assert status_table.duration(seconds) == text
