"""The place of a server, with a real process, a real store and a real pulse."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from common.waiting import wait_until
from core.engines.starts import Start, allow_starts, forbid_starts, last_start
from core.processes import keys
from core.processes.children import stop_all
from core.processes.rendezvous import Rendezvous
from launchers.attempts.failure import Failure
from launchers.node import pulse
from launchers.node.pulse import Pulse
from launchers.node.seat import Seat
from launchers.node.slot import ServerSlot
from tests.support.waiting import DEADLINE_S

NAME = "node0-engine0"


class SleepSlot(ServerSlot):
    """Its server sleeps."""

    def command(self) -> Sequence[str]:
        return [sys.executable, "-c", "import time; time.sleep(600)"]

    def environment(self) -> Mapping[str, str]:
        return {}


@pytest.fixture
def beat(store: Rendezvous, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pulse]:
    monkeypatch.setattr(pulse, "BEAT_S", 0.05)
    found = Pulse(store, 0, 1, [keys.server_ready(NAME), keys.server_condemned(NAME)], 60.0)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def slot(beat: Pulse, tmp_path: Path) -> Iterator[SleepSlot]:
    """Its first server runs."""
    found = SleepSlot("engine", NAME, Seat(1, 0, ("here",), "127.0.0.1", None, "key"), tmp_path, 1)
    found.start(beat)
    yield found
    if found.child is not None:
        stop_all([found.child], 0.0)
    found.close()


def kill(slot: ServerSlot) -> int:
    assert slot.child is not None
    slot.child.signal(signal.SIGKILL)
    slot.child.wait(DEADLINE_S)
    return slot.child.pid


def restarted(slot: ServerSlot, beat: Pulse, pid: int, deadline_s: float = DEADLINE_S) -> bool:
    """Whether another process runs within the deadline."""

    def another() -> bool:
        assert slot.keep_running(beat) is None
        return slot.child is not None and slot.child.pid != pid

    return wait_until(another, deadline_s, 0.01)


def incarnation(store: Rendezvous) -> int:
    member = store.lookup("engine", NAME)
    return member.incarnation if member is not None else -1


def end_of(slot: ServerSlot, beat: Pulse) -> Failure:
    """The failure that it ends with once it is started."""
    slot.start(beat)
    found: list[Failure | None] = []
    try:
        assert wait_until(lambda: found.append(slot.keep_running(beat)) or found[-1] is not None, 20, 0.01)
    finally:
        slot.close()
    assert found[-1] is not None
    return found[-1]


class RefusingSlot(SleepSlot):
    """Its server refuses its command line, as argparse does."""

    def command(self) -> Sequence[str]:
        return [sys.executable, "-c", "import argparse; argparse.ArgumentParser().parse_args(['--nonsense'])"]


def test_a_server_that_refuses_its_command_line_is_not_started_again(beat: Pulse, tmp_path: Path) -> None:
    slot = RefusingSlot("engine", NAME, Seat(1, 0, ("here",), "127.0.0.1", None, "key"), tmp_path, 3)
    assert end_of(slot, beat).cause == "exited with code 2 before it answered for the first time (start 1)"


class SpeakingSlot(RefusingSlot):
    """Its server said why."""

    def last_error(self) -> str:
        return "ValueError: too many"


def test_what_a_server_said_of_its_end_is_in_the_first_line(beat: Pulse, tmp_path: Path) -> None:
    slot = SpeakingSlot("engine", NAME, Seat(1, 0, ("here",), "127.0.0.1", None, "key"), tmp_path, 3)
    assert end_of(slot, beat).cause == (
        "exited with code 2 before it answered for the first time (start 1), ValueError: too many"
    )


def test_a_server_that_dies_is_restarted(slot: ServerSlot, beat: Pulse, store: Rendezvous) -> None:
    assert restarted(slot, beat, kill(slot))
    assert wait_until(lambda: incarnation(store) == 1, 10)


def test_it_is_not_started_while_the_trainer_has_its_gpu(slot: ServerSlot, beat: Pulse, store: Rendezvous) -> None:
    forbid_starts(store, NAME)
    pid = kill(slot)
    assert not restarted(slot, beat, pid, 0.5)
    assert last_start(store, NAME) == Start(1, held=True)
    assert incarnation(store) == 0
    allow_starts(store, NAME)
    assert restarted(slot, beat, pid)
    assert wait_until(lambda: incarnation(store) == 1, 10)


def test_it_asks_again_if_the_store_did_not_answer(
    slot: ServerSlot, beat: Pulse, store: Rendezvous, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(key: str) -> str:
        raise RuntimeError("connection refused")

    monkeypatch.setattr(store, "get", gone)
    pid = kill(slot)
    assert not restarted(slot, beat, pid, 0.5)
    monkeypatch.undo()
    assert restarted(slot, beat, pid)


def test_one_that_dies_too_often_is_a_failure(slot: ServerSlot, beat: Pulse, store: Rendezvous) -> None:
    store.set(keys.server_ready(NAME), "0")
    assert wait_until(lambda: beat.value(keys.server_ready(NAME)) is not None, 10)
    assert restarted(slot, beat, kill(slot))
    kill(slot)
    failure = slot.keep_running(beat)
    assert isinstance(failure, Failure)
    assert failure.cause == "killed by signal 9 (SIGKILL) after 1 restarts"
