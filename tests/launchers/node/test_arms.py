"""An engine over three nodes: real processes, a real store, and a pulse for each node's agent."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from common.waiting import wait_until
from core.config.layout import Share
from core.engines.starts import Start, allow_starts, forbid_starts, last_start
from core.processes import keys
from core.processes.children import stop_all
from core.processes.rendezvous import Rendezvous
from launchers.attempts.failure import Failure
from launchers.node import pulse
from launchers.node.arms import Arms, ArmSlot, Told
from launchers.node.pulse import Pulse
from launchers.node.seat import Seat
from launchers.node.slot import ServerSlot
from tests.support.waiting import DEADLINE_S

NAME = "node0-engine0"
SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")


class Leading(ServerSlot):
    """The slot with the server."""

    def command(self) -> Sequence[str]:
        return SLEEP

    def environment(self) -> Mapping[str, str]:
        return {}


class Arm(ArmSlot):
    """A slot on another node."""

    def command(self) -> Sequence[str]:
        return SLEEP

    def environment(self) -> Mapping[str, str]:
        return {"MEETING": self.told.meeting}


class Engine:
    """All of its slots, each with its agent's pulse."""

    def __init__(self, store: Rendezvous, folder: Path) -> None:
        seats = [Seat(1, node, ("a", "b", "c"), "127.0.0.1", None, "key") for node in range(3)]
        self.arms = Arms(NAME, 3, seats[0])
        self.slots: list[ServerSlot] = [Leading("engine", NAME, seats[0], folder, 2, self.arms)]
        for rank in (1, 2):
            share = Share(NAME, 0, rank)
            arm = Arm("engine", share.name, seats[rank], folder, 2)
            arm.share = share
            self.slots.append(arm)
        self.pulses = [Pulse(store, node, 3, slot.watched, 60.0) for node, slot in enumerate(self.slots)]
        self.failure: Failure | None = None

    def look(self) -> None:
        """What each agent does ten times a second."""
        for slot, beat in zip(self.slots, self.pulses, strict=True):
            self.failure = slot.keep_running(beat) or self.failure

    def until(self, reached: Callable[[], bool]) -> bool:
        def looked() -> bool:
            self.look()
            return reached()

        return wait_until(looked, DEADLINE_S, 0.01)

    @property
    def pids(self) -> list[int]:
        """Of the programs that run."""
        return [slot.child.pid for slot in self.slots if slot.child is not None and slot.child.exit_code() is None]

    def kill(self, rank: int) -> None:
        child = self.slots[rank].child
        assert child is not None
        child.signal(signal.SIGKILL)
        child.wait(DEADLINE_S)

    def is_another(self, before: Sequence[int]) -> bool:
        """Whether all programs of a later incarnation run."""
        return len(self.pids) == len(self.slots) and not set(self.pids) & set(before)


@pytest.fixture
def engine(store: Rendezvous, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """It runs."""
    monkeypatch.setattr(pulse, "BEAT_S", 0.05)
    found = Engine(store, tmp_path)
    for beat in found.pulses:
        beat.start()
    for slot, beat in zip(found.slots, found.pulses, strict=True):
        slot.begin(beat)
    assert found.until(lambda: len(found.pids) == 3)
    yield found
    stop_all([slot.child for slot in found.slots if slot.child is not None], 0.0)
    for beat in found.pulses:
        beat.stop()
    for slot in found.slots:
        slot.close()


def test_arms_start_with_the_first_node_and_are_told_where_all_meet(engine: Engine, store: Rendezvous) -> None:
    assert {slot.environment().get("MEETING") for slot in engine.slots} == {None, engine.arms.meeting}
    assert engine.arms.meeting.startswith("127.0.0.1:")
    members = store.wait("engine", [slot.name for slot in engine.slots], 10)
    assert [(one.name, one.node) for one in members] == [(NAME, 0), (f"{NAME}-arm1", 1), (f"{NAME}-arm2", 2)]
    assert {one.incarnation for one in members} == {0}


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_whichever_program_dies_all_are_started_again(engine: Engine, store: Rendezvous, rank: int) -> None:
    before = engine.pids
    engine.kill(rank)
    assert engine.until(lambda: engine.is_another(before))
    assert engine.failure is None
    for slot in engine.slots:
        assert (slot.folder / f"{slot.name}.1.log").exists()
    assert last_start(store, NAME) == Start(1, held=False)


def test_none_starts_while_the_trainer_has_the_gpus_and_all_have_left_them_by_then(
    engine: Engine, store: Rendezvous
) -> None:
    forbid_starts(store, NAME)
    before = engine.pids
    engine.kill(2)
    assert engine.until(lambda: last_start(store, NAME) == Start(1, held=True))
    assert engine.pids == []
    allow_starts(store, NAME)
    assert engine.until(lambda: engine.is_another(before))


def test_an_engine_that_is_given_up_ends_on_all_nodes(engine: Engine, store: Rendezvous) -> None:
    before = engine.pids
    store.set(keys.server_condemned(NAME), "0")
    assert engine.until(lambda: engine.is_another(before))


def test_an_arm_that_dies_too_often_is_named_in_the_engines_failure(engine: Engine, store: Rendezvous) -> None:
    before = engine.pids
    engine.kill(1)  # before the engine has answered for the first time it is started once more
    assert engine.until(lambda: engine.is_another(before))
    engine.kill(1)
    assert engine.until(lambda: engine.failure is not None)
    assert engine.failure is not None
    assert engine.failure.name == NAME
    assert engine.failure.cause == (
        f"lost {NAME}-arm1 (killed by signal 9 (SIGKILL)) before it answered for the first time (start 2)"
    )


@pytest.mark.parametrize("told", [Told(3, "10.0.0.1:2000"), Told(0)])
def test_what_arms_are_told_is_read_as_it_was_written(told: Told) -> None:
    assert Told.parse(str(told)) == told
