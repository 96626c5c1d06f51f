"""Checkpoints: a folder per step, complete when its manifest is there and agrees with every file.

    checkpoints/step_000008/manifest.json      state, sizes and checksums of all files: written last
    checkpoints/step_000008/trainer/...        model, optimiser, schedule, RNG (resharding format)
    checkpoints/step_000008/carried.bin        groups that the next step goes on with, if there are some
    hf_steps/step_000008/...                   the model as a HuggingFace directory, if the run file wants some: read
                                               out of the trainer's files before the checkpoint has its name, so that
                                               no checkpoint stands without it

A checkpoint is written under a temporary name and renamed, so a folder of the final name is either whole or damaged
later; damaged ones are skipped with a message. A run may go on while it is written:

    save      the one before is on the disk ─► staged: the host has copies    waited for
    writing   files of each rank ─► rank 0: model, manifest ─► renamed         a thread of each rank, in a group apart

Collective: `save` and `load_latest` by all trainer ranks.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Protocol

import torch.distributed as dist

from common.files import put_in_place
from core.loop.carried_file import read_carried, write_carried
from core.loop.manifest import find_latest, write_manifest
from core.loop.model_saves import ModelSaves
from core.loop.state import LoopState
from core.loop.writing import Writing
from core.processes.collective import broadcast
from core.run_dir.run_directory import step_folder

# of the time, for checkpoints that come by the clock: what steps wait, and what the disk, which others use too, is busy
MAX_SHARE, MAX_WRITING = 0.05, 0.25
WRITE_TIME = "perf/write_time"

log = logging.getLogger(__name__)


class Saveable(Protocol):
    """Who has state to save: the trainer. Both calls are collective over the trainer ranks."""

    def stage(self, directory: Path, *, apart: bool) -> Callable[[dist.ProcessGroup], None]:
        """Begin to save into an existing folder.

        Args:
            apart: what is returned may be called while the state changes.
        Returns:
            the rest: everything is written when it returns. Collective over the group that it is given.
        """
        ...

    def load(self, directory: Path) -> None:
        """Take it back, whatever the parallel layout that wrote it."""
        ...


class Checkpoints:
    """Writes, keeps, finds and checks the checkpoints of a run."""

    def __init__(
        self,
        folder: Path,
        trainer: Saveable,
        *,
        interval: int,
        keep: int,
        num_steps: int,
        every_s: float | None = None,
        models: ModelSaves | None = None,
        asynchronous: bool = False,
        timeout_s: float = 1800.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep where checkpoints go, and how often.

        Args:
        interval: steps between checkpoints; 0: none by steps.
        every_s: seconds between checkpoints, more where saving is slow; None: none by time.
        models: HuggingFace directories that are written with checkpoints; None: there are none.
        asynchronous: the run goes on while a checkpoint is written; the same on every rank.
        timeout_s: the longest that others are waited for, and the disk where a checkpoint has to be on it.
        """
        self._folder = folder
        self._trainer = trainer
        self._interval = interval
        self._keep = keep
        self._num_steps = num_steps
        self._every_s = every_s
        self._models = models
        self._asynchronous = asynchronous
        self._timeout_s = timeout_s
        self._clock = clock
        self._saved_at = clock()  # or when the run began
        self._save_s = 0.0  # what the latest save was waited for
        self._write_s = 0.0  # what it took to be on the disk once it was staged
        self._untold: dict[str, float] = {}  # of what is on the disk
        self._newest: LoopState | None = None  # what the newest checkpoint holds, if this process saved or read it
        self._writing: Writing | None = None
        self._group: dist.ProcessGroup | None = None  # of those who write, once there is something to write

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be written once `step` steps are complete: at the interval, in time, at the end.

        By time there is none while one is being written. Collective: all trainer ranks, as the clock of rank 0 decides.

        Raises:
            Exception: what has kept the one before from being written.
        """
        self._look()
        by_steps = step == self._num_steps or (self._interval > 0 and step % self._interval == 0)
        by_steps = by_steps or (self._models is not None and self._models.due(step))
        if by_steps or self._every_s is None:
            return by_steps
        return bool(broadcast(self._writing is None and self._waited_s() >= self._wait_s()))

    def ensure(self, state: LoopState) -> None:
        """Return when a checkpoint that holds this state is on the disk. Collective: all trainer ranks."""
        if state != self._newest:
            self.save(state)
        self.wait()

    def wait(self, timeout_s: float | None = None) -> None:
        """Return when what was saved is on the disk. Every rank waits for itself.

        Args:
            timeout_s: None: as long as for everything.
        Raises:
            Exception: what has kept it from being written; `WritingTimedOut`.
        """
        if self._writing is not None:
            self._writing.wait(self._timeout_s if timeout_s is None else timeout_s)
            self._look()

    def save(self, state: LoopState) -> Path:
        """Write a checkpoint, or begin to, and drop the oldest beyond `keep`.

        Collective: all trainer ranks. Not asynchronous, it returns when the checkpoint is complete.

        Returns:
            where it is, or will be.
        """
        began = self._clock()
        self.wait()
        final = self._folder / step_folder(state.next_step)
        unfinished = final.with_suffix(".unfinished")
        trainer_folder = unfinished / "trainer"
        if dist.get_rank() == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            trainer_folder.mkdir(parents=True)
            write_carried(unfinished, state.carried)
        dist.barrier()
        write = self._trainer.stage(trainer_folder, apart=self._asynchronous)
        complete = partial(self._complete, write, self._group_of_writers(), state, unfinished, final)
        if self._asynchronous:
            self._writing = Writing(f"checkpoint {final}", complete)
        else:
            complete()
            self._written()
        self._newest = state
        self._saved_at = self._clock()
        self._save_s = self._saved_at - began
        return final

    def take_times(self) -> dict[str, float]:
        """Seconds that the newest checkpoint on the disk was written, as a metric; once for each. Collective: none."""
        times, self._untold = self._untold, {}
        return times

    def _complete(
        self,
        write: Callable[[dist.ProcessGroup], None],
        group: dist.ProcessGroup,
        state: LoopState,
        unfinished: Path,
        final: Path,
    ) -> None:
        """Write what is staged, and give it its name. Collective over the group: nobody is done before all are."""
        began = time.monotonic()
        write(group)
        if dist.get_rank() == 0:
            if self._models is not None and self._models.due(state.next_step):
                self._models.save(state.next_step, unfinished / "trainer")
            write_manifest(unfinished, state)
            put_in_place(unfinished, final)
            self._prune(final)
        dist.barrier(group)
        self._write_s = time.monotonic() - began
        if dist.get_rank() == 0:
            log.info("checkpoint=%s write_seconds=%.3f", final, self._write_s)

    def _group_of_writers(self) -> dist.ProcessGroup:
        """Threads that write must not meet in the group in which the loop meets. Collective: all trainer ranks."""
        if self._group is None:
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=self._timeout_s))
        return self._group

    def _look(self) -> None:
        """Note that a writing has ended; raise what has ended it."""
        if self._writing is not None and self._writing.has_ended:
            self._writing.check()
            self._writing = None
            self._written()

    def _written(self) -> None:
        self._untold = {WRITE_TIME: self._write_s}

    def load_latest(self) -> LoopState | None:
        """Take back the newest sound checkpoint; None where there is none.

        Collective: all trainer ranks.
        """
        found = find_latest(self._folder) if dist.get_rank() == 0 else None
        sent = broadcast((found[0], found[1].to_dict()) if found else None)
        if sent is None:
            return None
        path, state = sent[0], LoopState(**sent[1], carried=read_carried(sent[0]))
        self._trainer.load(path / "trainer")
        self._newest = state
        log.info("resumed_from=%s next_step=%d", path, state.next_step)
        return state

    def _waited_s(self) -> float:
        return self._clock() - self._saved_at

    def _wait_s(self) -> float:
        """Seconds from one checkpoint to the next: as asked, or what gives saving and writing their largest share."""
        return max(self._every_s or 0.0, self._save_s * (1 / MAX_SHARE - 1), self._write_s / MAX_WRITING)

    def _prune(self, newest: Path) -> None:
        """Keep the newest `keep` checkpoints. Later steps belong to a past that could not be read and was given up, and
        unfinished ones to attempts that were killed.
        """
        for cut_off in self._folder.glob("step_??????.*"):
            shutil.rmtree(cut_off, ignore_errors=True)
        found = sorted(self._folder.glob("step_??????"))
        kept = [path for path in found if path <= newest][-self._keep :]
        for old in found:
            if old not in kept:
                shutil.rmtree(old, ignore_errors=True)
