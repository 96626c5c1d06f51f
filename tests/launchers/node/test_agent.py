"""What is left of an attempt when its agent itself fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from core.processes.rendezvous import Address
from core.run_dir.run_directory import RunDirectory
from launchers.attempts.failure import read_record
from launchers.attempts.outcome import Outcome
from launchers.node import agent
from launchers.node.agent import run_agent
from launchers.node.seat import Seat

SEAT = Seat(1, 0, ("here",), "127.0.0.1", None, "key")


def conclusions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Outcome | None) -> list[Outcome]:
    """Of an agent that fails, having concluded an attempt or not; the last one is what it returned."""

    class FailingAgent:
        rendezvous = type("Served", (), {"address": Address("127.0.0.1", 9)})

        def __init__(self, *_: object) -> None: ...

        def run(self, pause_reason: Callable[[], str], conclude: Callable[[Outcome], None]) -> Outcome:
            if found is not None:
                conclude(found)
            raise RuntimeError("processes 7 survived SIGKILL for 10 s")

    monkeypatch.setattr(agent, "NodeAgent", FailingAgent)
    monkeypatch.setattr(agent, "kill_descendants", lambda: None)  # of this process: a cluster may be among them
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
