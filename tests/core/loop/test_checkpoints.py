from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common import files
from core.config import load_run_file
from core.config.sections.checkpoint import CheckpointConfig
from core.loop.checkpoints import WRITE_TIME, Checkpoints
from core.loop.manifest import CHUNK_BYTES, MANIFEST, find_latest, is_complete
from core.loop.model_saves import ModelSaves
from core.loop.state import LoopState
from core.rollout.carried import Carried, Origin
from core.run_dir.run_directory import RunDirectory
from core.samples import Prompt, Sample, Status
from tests.support.good_run import write_run


class FakeTrainer:
    """State is one number; enough to see what was written and taken back."""

    def __init__(self) -> None:
        self.value = self.staged = 0
        self.num_saves = 0

    def stage(self, directory: Path, *, apart: bool) -> Callable[[object], None]:
        del apart
        self.staged = self.value
        return lambda _group: self.save(directory)

    def save(self, directory: Path) -> None:
        self.num_saves += 1
        (directory / "value").write_text(str(self.staged))
        (directory / "sub").mkdir()
        (directory / "sub" / "shard").write_bytes(bytes(range(256)) * 10)

    def export(self, saved: Path, directory: Path) -> None:
        directory.mkdir(parents=True)
        (directory / "model").write_text((saved / "value").read_text())

    def load(self, directory: Path) -> None:
        self.value = int((directory / "value").read_text())


@pytest.fixture
def trainer() -> FakeTrainer:
    return FakeTrainer()


@pytest.fixture
def checkpoints(tmp_path: Path, trainer: FakeTrainer, process_group: None) -> Checkpoints:
    del process_group
    return Checkpoints(tmp_path / "checkpoints", trainer, interval=2, keep=2, num_steps=7)


def save(checkpoints: Checkpoints, trainer: FakeTrainer, step: int) -> Path:
    trainer.value = step * 100
    return checkpoints.save(LoopState(next_step=step, data_position=step * 8))


def test_due_at_the_interval_and_at_the_end(checkpoints: Checkpoints) -> None:
    assert [step for step in range(1, 8) if checkpoints.due(step)] == [2, 4, 6, 7]


def test_how_long_a_checkpoint_was_written_is_a_metric_told_once(
    checkpoints: Checkpoints, trainer: FakeTrainer
) -> None:
    assert checkpoints.take_times() == {}
    save(checkpoints, trainer, 2)
    assert [list(checkpoints.take_times()) for _ in range(2)] == [[WRITE_TIME], []]


def test_due_after_every_step(tmp_path: Path, trainer: FakeTrainer) -> None:
    every = Checkpoints(tmp_path, trainer, interval=1, keep=1, num_steps=3)
    assert [step for step in range(1, 4) if every.due(step)] == [1, 2, 3]


def test_due_in_time_and_saving_takes_a_twentieth_at_most(
    tmp_path: Path, trainer: FakeTrainer, process_group: None
) -> None:
    now = [0.0]
    timed = Checkpoints(tmp_path, trainer, interval=0, keep=1, num_steps=99, every_s=60.0, clock=lambda: now[0])

    def due_at(seconds: float) -> bool:
        now[0] = seconds
        return timed.due(1)

    assert [due_at(59.9), due_at(60.0)] == [False, True]
    slow = trainer.save

    def save(directory: Path) -> None:
        now[0] += 10.0
        slow(directory)

    trainer.save = save  # type: ignore[method-assign]
    timed.save(LoopState(next_step=1))  # from 60 s to 70 s: the next one is due when 190 s have passed
    assert [due_at(259.9), due_at(260.1)] == [False, True]


def test_due_as_often_as_is_cheap(tmp_path: Path, trainer: FakeTrainer, process_group: None) -> None:
    """Steps of 10 s: saved after the first, to learn what a save takes, and then so that it is a twentieth of all."""
    now = [0.0]
    every_s = CheckpointConfig().every_s
    auto = Checkpoints(tmp_path, trainer, interval=0, keep=1, num_steps=99, every_s=every_s, clock=lambda: now[0])
    save_s = 0.5
    slow = trainer.save

    def save(directory: Path) -> None:
        now[0] += save_s
        slow(directory)

    def saved() -> list[int]:
        steps = []
        for step in range(1, 9):
            now[0] += 10.0
            if auto.due(step):
                auto.save(LoopState(next_step=step))
                steps.append(step)
        return steps

    trainer.save = save  # type: ignore[method-assign]
    assert saved() == [1, 2, 3, 4, 5, 6, 7, 8]
    save_s = 1.5  # 28.5 s from one to the next
    assert saved() == [1, 4, 7]


def test_an_old_one_that_cannot_be_removed_stops_nothing(
    checkpoints: Checkpoints, trainer: FakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **settings: Any) -> None:
        raise PermissionError("not yours")

    for step in (2, 4):
        save(checkpoints, trainer, step)
    monkeypatch.setattr(os, "rmdir", refuse)
    save(checkpoints, trainer, 6)
    assert find_latest(tmp_path / "checkpoints") == (tmp_path / "checkpoints" / "step_000006", LoopState(6, 48))


def test_the_newest_comes_back_and_old_ones_go(checkpoints: Checkpoints, trainer: FakeTrainer, tmp_path: Path) -> None:
    assert checkpoints.load_latest() is None
    for step in (2, 4, 6):
        save(checkpoints, trainer, step)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step_000004", "step_000006"]
    trainer.value = -1
    assert checkpoints.load_latest() == LoopState(next_step=6, data_position=48)
    assert trainer.value == 600


def test_groups_that_are_carried_over_come_back(checkpoints: Checkpoints, trainer: FakeTrainer, tmp_path: Path) -> None:
    prompt = Prompt(-1, "", (), None)
    sample = Sample(0, 1, prompt, [5, 6], [-0.5, -0.25], Status.ABORTED, "step1", seed=77)
    state = LoopState(2, 16, (Carried(Origin(9, 1, 3), (sample,)),))
    checkpoints.save(state)
    again = Checkpoints(tmp_path / "checkpoints", trainer, interval=2, keep=2, num_steps=7)
    assert again.load_latest() == state
    again.ensure(state)
    assert trainer.num_saves == 1
    again.ensure(LoopState(2, 16))
    assert trainer.num_saves == 2


def test_the_one_just_written_stays_beside_a_later_one_that_is_damaged(
    checkpoints: Checkpoints, trainer: FakeTrainer, tmp_path: Path
) -> None:
    """The run goes on from the one before: what it saves then has lower numbers."""
    for step in (2, 4):
        truncate(save(checkpoints, trainer, step))
    assert checkpoints.load_latest() is None
    save(checkpoints, trainer, 1)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_000001"]
    assert checkpoints.load_latest() == LoopState(next_step=1, data_position=8)


def test_a_step_that_is_saved_again_takes_the_place_of_the_first(
    checkpoints: Checkpoints, trainer: FakeTrainer, tmp_path: Path
) -> None:
    first = save(checkpoints, trainer, 2)
    (first / "trainer" / "value").write_text("damaged")
    save(checkpoints, trainer, 2)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_000002"]
    assert checkpoints.load_latest() == LoopState(next_step=2, data_position=16)


def test_all_of_it_is_on_the_disk_before_it_has_its_name(
    checkpoints: Checkpoints, trainer: FakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power failure a name may be kept and a content lost: only what was flushed stays."""
    done: list[str] = []
    flush, rename = files.flush, os.replace

    def flushed(path: Path) -> None:
        flush(path)
        done.append(path.name)

    def renamed(source: Path, target: Path) -> None:
        rename(source, target)
        done.append(f"-> {Path(target).name}")

    monkeypatch.setattr(files, "flush", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    save(checkpoints, trainer, 2)
    at = done.index("-> step_000002")
    assert {"value", "shard", "sub", "trainer", MANIFEST, "step_000002.unfinished"} <= set(done[:at])
    assert done[at + 1 :] == ["checkpoints"]


def truncate(path: Path) -> None:
    shard = path / "trainer" / "sub" / "shard"
    shard.write_bytes(shard.read_bytes()[:-1])


def flip(path: Path, at: int = 100, name: str = "sub/shard") -> None:
    file = path / "trainer" / name
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "no manifest": (lambda path: (path / MANIFEST).unlink(), "it has no manifest, so it was never finished"),
    "half a manifest": (lambda path: (path / MANIFEST).write_text("{"), "its manifest cannot be read (JSONDecodeError"),
    "foreign manifest": (lambda path: (path / MANIFEST).write_text("[1]"), "its manifest cannot be read (TypeError"),
    "missing file": (lambda path: (path / "trainer" / "value").unlink(), "trainer/value is missing"),
    "short file": (truncate, "trainer/sub/shard has 2559 bytes, the manifest says 2560"),
    "flipped bit": (flip, "trainer/sub/shard is damaged: its checksum differs"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_with_its_reason(
    kind: str, checkpoints: Checkpoints, trainer: FakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(checkpoints, trainer, 2)
    damage, message = DAMAGES[kind]
    damage(save(checkpoints, trainer, 4))
    with caplog.at_level(logging.WARNING):
        found = find_latest(tmp_path / "checkpoints")
    assert found is not None
    assert found[1].next_step == 2
    assert message in caplog.text


@pytest.mark.parametrize("at", [0, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 6])
def test_damage_anywhere_in_a_large_file_is_found(
    at: int, checkpoints: Checkpoints, trainer: FakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is read chunk by chunk: here two whole ones, and seven bytes."""

    def save_large(directory: Path) -> None:
        (directory / "large").write_bytes(bytes(2 * CHUNK_BYTES + 7))

    monkeypatch.setattr(trainer, "save", save_large)
    path = save(checkpoints, trainer, 2)
    assert find_latest(tmp_path / "checkpoints") == (path, LoopState(2, 16))
    flip(path, at, "large")
    assert find_latest(tmp_path / "checkpoints") is None
    flip(path, at, "large")
    assert find_latest(tmp_path / "checkpoints") == (path, LoopState(2, 16)), "nothing else was wrong"


def test_every_file_is_listed_but_the_manifest(checkpoints: Checkpoints, trainer: FakeTrainer) -> None:
    manifest = json.loads((save(checkpoints, trainer, 2) / MANIFEST).read_text())
    content = bytes(range(256)) * 10
    assert manifest == {
        "schema": 1,
        "state": {"next_step": 2, "data_position": 16},
        "files": {"trainer/sub/shard": [2560, zlib.crc32(content)], "trainer/value": [3, zlib.crc32(b"200")]},
    }


def test_due_at_the_end_only_without_an_interval(trainer: FakeTrainer, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, trainer, interval=0, keep=2, num_steps=7)
    assert [step for step in range(1, 8) if checkpoints.due(step)] == [7]


def test_what_was_just_saved_or_loaded_is_not_saved_again(
    checkpoints: Checkpoints, trainer: FakeTrainer, tmp_path: Path
) -> None:
    def ensured(which: Checkpoints, step: int) -> bool:
        before = trainer.num_saves
        which.ensure(LoopState(next_step=step, data_position=step * 8))
        return trainer.num_saves > before

    assert [ensured(checkpoints, step) for step in (2, 2, 3, 3)] == [True, False, True, False]
    resumed = Checkpoints(tmp_path / "checkpoints", trainer, interval=2, keep=2, num_steps=7)
    assert resumed.load_latest() == LoopState(3, 24)
    assert [ensured(resumed, step) for step in (3, 4)] == [False, True]


@pytest.mark.parametrize(
    ("next_step", "hf", "save_hf", "wanted"),
    [
        (3, True, True, False),
        (4, False, True, False),
        (4, True, True, True),
        (4, False, False, True),
    ],
)
def test_a_run_is_complete_with_its_last_step_and_its_model(
    next_step: int, hf: bool, save_hf: bool, wanted: bool, trainer: FakeTrainer, tmp_path: Path, process_group: None
) -> None:
    config = load_run_file(write_run(tmp_path), ["rollout.num_rollout=4", f"checkpoint.save_hf={str(save_hf).lower()}"])
    directory = RunDirectory(tmp_path / "out")
    assert not is_complete(directory, config)
    Checkpoints(directory.checkpoints, trainer, interval=1, keep=2, num_steps=4).save(LoopState(next_step))
    if hf:
        directory.hf_model.mkdir()
    assert is_complete(directory, config) == wanted


def test_a_model_is_written_with_a_checkpoint_at_its_steps_and_at_the_end_it_is_the_runs(
    trainer: FakeTrainer, tmp_path: Path, process_group: None
) -> None:
    run = RunDirectory(tmp_path)
    models = ModelSaves(run, trainer, interval=3, num_steps=6)
    checkpoints = Checkpoints(run.checkpoints, trainer, interval=4, keep=9, num_steps=6, models=models)
    due = [step for step in range(1, 7) if checkpoints.due(step)]
    for step in due:
        save(checkpoints, trainer, step)
    assert (due, run.checkpoint_steps()) == ([3, 4, 6], [3, 4, 6])
    assert [path.name for path in run.hf_steps.iterdir()] == ["step_000003"]
    save(checkpoints, trainer, 3)  # done again after a failure: the later one counts
    assert (run.model_after(3) / "model").read_text() == "300"


def test_no_checkpoint_stands_without_the_model_of_its_step(
    trainer: FakeTrainer, tmp_path: Path, process_group: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path)
    models = ModelSaves(run, trainer, interval=3, num_steps=6)
    checkpoints = Checkpoints(run.checkpoints, trainer, interval=0, keep=9, num_steps=6, models=models)

    def die(saved: Path, directory: Path) -> None:
        directory.mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "export", die)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(LoopState(3))
    assert not run.checkpoint_steps()
    assert [path.name for path in run.hf_steps.iterdir()] == ["step_000003.unfinished"]


def test_a_save_that_was_cut_off_leaves_the_older_one_and_is_cleared_by_the_next(
    checkpoints: Checkpoints, trainer: FakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(checkpoints, trainer, 2)

    def die(directory: Path) -> None:
        (directory / "value").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "save", die)
        with pytest.raises(KeyboardInterrupt):
            save(checkpoints, trainer, 4)
    assert checkpoints.load_latest() == LoopState(2, 16)
    save(checkpoints, trainer, 4)
    assert checkpoints.load_latest() == LoopState(4, 32)
    assert not list((tmp_path / "checkpoints").glob("*unfinished*"))
