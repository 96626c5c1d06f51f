"""Checkpoints that are written while the run goes on: what is waited for, what is in them, and what goes wrong."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.waiting import wait_until
from core.loop.checkpoints import WRITE_TIME, Checkpoints
from core.loop.model_saves import ModelSaves
from core.loop.state import LoopState
from core.loop.writing import WritingTimedOut
from core.run_dir.run_directory import RunDirectory

WAIT_S = 30.0


class Slow:
    """A trainer whose state is one number; each write waits for its turn."""

    def __init__(self) -> None:
        self.value = 0
        self.error: Exception | None = None
        self.turns = threading.Semaphore(0)

    def stage(self, directory: Path, *, apart: bool) -> Callable[[Any], None]:
        assert apart
        value = self.value

        def write(_group: Any) -> None:
            (directory / "half").write_text("")
            assert self.turns.acquire(timeout=WAIT_S)
            if self.error is not None:
                raise self.error
            (directory / "value").write_text(str(value))

        return write

    def export(self, saved: Path, directory: Path) -> None:
        directory.mkdir(parents=True)
        assert self.turns.acquire(timeout=WAIT_S)
        if self.error is not None:
            raise self.error
        (directory / "model").write_text((saved / "value").read_text())

    def load(self, directory: Path) -> None:
        self.value = int((directory / "value").read_text())


@pytest.fixture
def trainer() -> Slow:
    return Slow()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def checkpoints(folder: Path, trainer: Slow, process_group: None) -> Checkpoints:
    del process_group
    return make(folder, trainer)


def make(folder: Path, trainer: Slow, **settings: Any) -> Checkpoints:
    settings = {"interval": 1, "keep": 2, "num_steps": 9, "timeout_s": WAIT_S, **settings}
    return Checkpoints(folder, trainer, asynchronous=True, **settings)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_run_goes_on_and_the_checkpoint_is_of_the_moment_of_the_save(
    checkpoints: Checkpoints, trainer: Slow, folder: Path
) -> None:
    trainer.value = 7
    final = checkpoints.save(LoopState(1, 8))
    trainer.value = 8
    assert not final.exists()
    assert names(folder) == ["step_000001.unfinished"]
    trainer.turns.release()
    checkpoints.wait()
    assert names(folder) == ["step_000001"]
    assert checkpoints.load_latest() == LoopState(1, 8)
    assert trainer.value == 7


def test_what_is_half_written_is_never_taken_for_whole(checkpoints: Checkpoints, trainer: Slow, folder: Path) -> None:
    """As a process finds it that comes after a kill; the next checkpoint clears it away."""
    trainer.turns.release(2)
    checkpoints.save(LoopState(1))
    checkpoints.save(LoopState(2))
    checkpoints.wait()
    checkpoints.save(LoopState(3))
    assert wait_until(lambda: (folder / "step_000003.unfinished" / "trainer" / "half").exists(), WAIT_S)
    again = make(folder, trainer)
    assert again.load_latest() == LoopState(2)
    trainer.turns.release()
    checkpoints.wait()
    (folder / "step_000009.unfinished").mkdir()
    trainer.turns.release()
    again.ensure(LoopState(4))
    assert names(folder) == ["step_000003", "step_000004"]


def test_one_at_a_time(checkpoints: Checkpoints, trainer: Slow, folder: Path) -> None:
    checkpoints.save(LoopState(1))
    threading.Timer(0.2, trainer.turns.release).start()
    checkpoints.save(LoopState(2))
    assert names(folder) == ["step_000001", "step_000002.unfinished"]
    trainer.turns.release()
    checkpoints.wait()


def test_none_is_due_by_time_while_one_is_written_and_only_what_was_waited_for_counts(
    folder: Path, trainer: Slow, process_group: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("core.loop.checkpoints.time", SimpleNamespace(monotonic=float))  # writing takes no time
    timed = make(folder, trainer, interval=0, every_s=0.0, clock=lambda: now[0])
    assert timed.due(1)
    stage = trainer.stage

    def stage_in_a_second(directory: Path, *, apart: bool) -> Callable[[Any], None]:
        now[0] += 1.0
        return stage(directory, apart=apart)

    trainer.stage = stage_in_a_second  # type: ignore[method-assign]
    timed.save(LoopState(1))
    now[0] = 1000.0
    assert not timed.due(2)
    trainer.turns.release()
    assert wait_until(lambda: timed.due(2), WAIT_S)
    timed.save(LoopState(2))  # from 1000 s to 1001 s: a twentieth of the time until 1020 s
    trainer.turns.release()
    assert wait_until(lambda: names(folder) == ["step_000001", "step_000002"], WAIT_S)
    assert [timed.due(3) for now[0] in (1019.0, 1020.5)] == [False, True]


@pytest.mark.parametrize("told", ["due", "save", "ensure", "wait"])
def test_a_write_that_fails_is_told_at_the_next_step(
    told: str, checkpoints: Checkpoints, trainer: Slow, folder: Path
) -> None:
    trainer.turns.release(2)
    checkpoints.ensure(LoopState(1))
    trainer.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "shard")
    checkpoints.save(LoopState(2))
    ask: dict[str, Callable[[], Any]] = {
        "due": lambda: wait_until(lambda: not checkpoints.due(3), WAIT_S),
        "save": lambda: checkpoints.save(LoopState(3)),
        "ensure": lambda: checkpoints.ensure(LoopState(2)),
        "wait": checkpoints.wait,
    }
    with pytest.raises(OSError, match="No space left on device: 'shard'"):
        ask[told]()
    assert checkpoints.load_latest() == LoopState(1)


def test_a_pause_waits_for_what_is_being_written(checkpoints: Checkpoints, trainer: Slow, folder: Path) -> None:
    checkpoints.save(LoopState(1))
    threading.Timer(0.2, trainer.turns.release).start()
    checkpoints.ensure(LoopState(1))
    assert names(folder) == ["step_000001"]


def test_waiting_has_a_deadline(checkpoints: Checkpoints, trainer: Slow, folder: Path) -> None:
    checkpoints.save(LoopState(1))
    with pytest.raises(
        WritingTimedOut, match=r"step_000001 is still being written after \d+ s: wanted an end within 0 s"
    ):
        checkpoints.wait(0.1)
    trainer.turns.release()
    checkpoints.wait()


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


@pytest.fixture
def with_models(run: RunDirectory, trainer: Slow, process_group: None) -> Checkpoints:
    """Checkpoints with a model after each second step."""
    del process_group
    return make(run.checkpoints, trainer, models=ModelSaves(run, trainer, interval=2, num_steps=9))


def test_the_run_goes_on_while_a_model_is_written_and_has_it_with_the_checkpoint(
    with_models: Checkpoints, run: RunDirectory, trainer: Slow
) -> None:
    trainer.value = 7
    with_models.save(LoopState(2))
    trainer.value = 8
    trainer.turns.release()
    model = run.model_after(2)
    assert wait_until((run.hf_steps / "step_000002.unfinished").exists, WAIT_S)
    assert (model.exists(), run.checkpoint_steps()) == (False, [])
    trainer.turns.release()
    with_models.wait()
    assert ((model / "model").read_text(), run.checkpoint_steps()) == ("7", [2])
    trainer.turns.release()
    with_models.ensure(LoopState(3))
    assert names(run.hf_steps) == ["step_000002"], "there is none after the third step"


def test_a_model_that_cannot_be_written_is_told_and_its_checkpoint_is_none(
    with_models: Checkpoints, run: RunDirectory, trainer: Slow
) -> None:
    with_models.save(LoopState(2))
    trainer.turns.release()
    assert wait_until((run.hf_steps / "step_000002.unfinished").exists, WAIT_S)
    trainer.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors")
    trainer.turns.release()
    with pytest.raises(OSError, match=r"No space left on device: 'model\.safetensors'"):
        with_models.wait()
    assert run.checkpoint_steps() == []


def test_files_are_written_a_quarter_of_the_time_at_most_and_how_long_is_a_metric(
    folder: Path, trainer: Slow, process_group: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("core.loop.checkpoints.time", SimpleNamespace(monotonic=lambda: now[0]))
    timed = make(folder, trainer, interval=0, every_s=0.0, clock=lambda: now[0])
    timed.save(LoopState(1))
    assert wait_until((folder / "step_000001.unfinished" / "trainer" / "half").exists, WAIT_S)
    assert timed.take_times() == {}
    now[0] = 10.0  # what the writing takes
    trainer.turns.release()
    timed.wait(WAIT_S)
    assert [timed.take_times() for _ in range(2)] == [{WRITE_TIME: 10.0}, {}], "it is told once"
    assert [timed.due(2) for now[0] in (39.0, 40.5)] == [False, True], "from one beginning to the next"
