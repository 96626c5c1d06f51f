"""What an agent ends on its node, whatever of it cannot be ended."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from core.config import load_run_file
from core.run_dir.run_directory import RunDirectory
from launchers.node import processes
from launchers.node.processes import NodeProcesses
from launchers.node.seat import Seat
from tests.support.good_run import write_run

SEAT = Seat(1, 0, ("here",), "127.0.0.1", None, "key", range(23200, 23400))


def test_a_child_that_survives_keeps_no_other_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    graces: list[float] = []

    def stop_all(children: object, grace_s: float) -> None:
        graces.append(grace_s)
        raise RuntimeError("processes 7 survived SIGKILL for 10 s")

    monkeypatch.setattr(processes, "stop_all", stop_all)
    monkeypatch.setattr(processes, "kill_descendants", lambda: graces.append(-1.0))  # those of this process stay
    found = NodeProcesses(load_run_file(write_run(tmp_path)), RunDirectory(tmp_path), SEAT)
    (engine,) = found._slots
    found.note_in(tmp_path)
    found.end()
    assert graces == [processes.STOP_GRACE_S, 0.0, -1.0]
    assert caplog.text.count("not ended: processes 7 survived") == 2
    with socket.socket() as free:
        free.bind((SEAT.host, engine.port.number))
