from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from core import files
from core.checkpoint import MANIFEST, Checkpoints, find_latest
from core.state import LoopState


class FakeTrainer:
    """State is one number; enough to see what was written and taken back."""

    def __init__(self) -> None:
        self.value = 0

    def save(self, directory: Path) -> None:
        (directory / "value").write_text(str(self.value))
        (directory / "sub").mkdir()
        (directory / "sub" / "shard").write_bytes(bytes(range(256)) * 10)

    def load(self, directory: Path) -> None:
        self.value = int((directory / "value").read_text())


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


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


def test_the_newest_comes_back_and_old_ones_go(checkpoints: Checkpoints, trainer: FakeTrainer, tmp_path: Path) -> None:
    assert checkpoints.load_latest() is None
    for step in (2, 4, 6):
        save(checkpoints, trainer, step)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step_000004", "step_000006"]
    trainer.value = -1
    assert checkpoints.load_latest() == LoopState(next_step=6, data_position=48)
    assert trainer.value == 600


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


def flip(path: Path) -> None:
    shard = path / "trainer" / "sub" / "shard"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)


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
