"""What is left of an attempt when its agent itself fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from core.processes.rendezvous import Address, Rendezvous
from core.run_dir.moment import Moment
from core.run_dir.run_directory import RunDirectory
from launchers.attempts import judgement
from launchers.attempts.failure import Failure, read_record
from launchers.attempts.outcome import Outcome
from launchers.node import agent, early
from launchers.node.agent import run_agent
from launchers.node.processes import NodeProcesses
from launchers.node.seat import Seat
from tests.support.descendants import spare_descendants
from tests.support.good_run import write_run

SEAT = Seat(1, 0, ("here",), "127.0.0.1", None, "key")


def conclusions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Outcome | None) -> list[Outcome]:
    """Of an agent that fails, having concluded an attempt or not; the last one is what it returned."""

    class FailingAgent:
        rendezvous = type("Served", (), {"address": Address("127.0.0.1", 9)})
        signals = type("Heard", (), {"obeyed": staticmethod(lambda _: nullcontext())})

        def __init__(self, *_: object) -> None: ...

        def run(self, conclude: Callable[[Outcome], None], temporary: Path) -> Outcome:
            if found is not None:
                conclude(found)
            raise RuntimeError("processes 7 survived SIGKILL for 10 s")

    monkeypatch.setattr(agent, "NodeAgent", FailingAgent)
    spare_descendants(monkeypatch)
    concluded: list[Outcome] = []
    returned = run_agent(RunDirectory(tmp_path), SEAT, lambda: "preempted", conclude=concluded.append)
    return [*concluded, returned]


def test_an_attempt_is_concluded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails afterwards, such as ending a process, does not change how the attempt ended."""
    complete = Outcome("complete")
    assert conclusions(tmp_path, monkeypatch, complete) == [complete, complete]
    assert read_record(RunDirectory(tmp_path).attempt(1)) is None


def test_an_agent_that_fails_before_the_end_leaves_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    concluded, returned = conclusions(tmp_path, monkeypatch, None)
    assert concluded == returned
    assert concluded.how == "failed"
    record = read_record(RunDirectory(tmp_path).attempt(1))
    assert record is not None
    assert (record.role, record.cause) == ("agent", "RuntimeError: processes 7 survived SIGKILL for 10 s")


@pytest.mark.parametrize(
    ("number", "how", "code"),
    [(signal.SIGTERM, "interrupted", 143), (signal.SIGINT, "interrupted", 143), (signal.SIGUSR2, "preempted", 0)],
)
def test_an_agent_begins_with_the_signals_that_came_before(
    number: int, how: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it starts nothing, and the attempt has an end."""
    monkeypatch.setattr(NodeProcesses, "start", lambda *_: pytest.fail("something was started"))
    spare_descendants(monkeypatch)
    directory = RunDirectory(tmp_path)
    write_run(tmp_path).rename(directory.run_file)
    directory.attempt(1).mkdir(parents=True)
    before = {one: signal.getsignal(one) for one in (*early.ENDING, early.WARNING)}
    try:
        early.note()
        os.kill(os.getpid(), number)
        concluded: list[Outcome] = []
        outcome = run_agent(directory, SEAT, lambda: "preempted", conclude=concluded.append)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert concluded == [outcome]
    assert (outcome.how, outcome.exit_code) == (how, code)


@pytest.mark.parametrize("fit", [True, False])
def test_processes_are_started_behind_the_gate_only(fit: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a node that is not fit, and of one whose processes could not be started."""

    class OneGate:
        def __init__(self, *_: object) -> None: ...

        def pass_as_leader(self, rendezvous: Rendezvous, stopped: Callable[[], bool]) -> list[Failure]:
            return [] if fit else [Failure("node", "here", Moment(), "no room", 0)]

    started: list[str] = []

    def start(*_: object) -> None:
        started.append("here")
        raise RuntimeError("nothing starts here")

    monkeypatch.setattr(agent, "Gate", OneGate)
    monkeypatch.setattr(NodeProcesses, "start", start)
    spare_descendants(monkeypatch)
    monkeypatch.setattr(judgement, "RECORDS_GRACE_S", 0.0)
    directory = RunDirectory(tmp_path)
    write_run(tmp_path).rename(directory.run_file)
    outcome = run_agent(directory, SEAT, lambda: "preempted")
    assert started == (["here"] if fit else [])
    assert outcome.how == ("failed" if fit else "node_failure")
