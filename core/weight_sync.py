"""Weight sync: the trainer's parameters, bucket by bucket, into every engine that does not have them yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from core.collective import any_rank
from core.engines import Engine, Engines
from core.residency.machine import Residency
from core.sglang.errors import EngineDied
from core.sglang.payload import Bucket, NamedTensors
from core.sglang.weights import WeightUpdate
from core.weight_files import WeightFiles

BUCKET_BYTES = 1024 * 2**20  # two of them are in use at a time

Updates = Sequence[tuple[Engine, WeightUpdate]]


class WeightSource(Protocol):
    """Who has the weights: the trainer."""

    def named_buckets(self, max_bytes: int) -> Iterator[list[tuple[str, Tensor]]]:
        """Full tensors under HuggingFace names, in a fixed order. Collective: every trainer rank must iterate."""
        ...


@dataclass
class _Slot:
    """A bucket, and the engines that are taking it."""

    bucket: Bucket = field(default_factory=Bucket)
    answers: list[tuple[Engine, Future[None]]] = field(default_factory=list)


class WeightSync:
    """Trainer to engines. Collective: every trainer rank calls `push`; ranks that drive no engine only contribute."""

    def __init__(self, source: WeightSource, engines: Engines, files: WeightFiles | None = None) -> None:
        """Args:
        files: how weights reach engines on other hosts; None: there are none.
        """
        self._source = source
        self._engines = engines
        self._files = files
        self.residency: Residency | None = None  # where GPUs are shared: an engine may need weights amid a rollout

    def push(self, version: str) -> bool:
        """Bring every live engine of every node to `version`.

        Returns:
            whether any engine needed it; False costs one small collective and moves nothing.
        Collective: all trainer ranks.
        """
        self._engines.adopt_restarted()
        stale = [engine for engine in self._engines.alive() if engine.weight_version != version]
        if not any_rank(bool(stale)):
            return False
        with self.residency.borrowed("sync") if self.residency else nullcontext():
            self._send_all(stale, version)
        return True

    def _send_all(self, stale: Sequence[Engine], version: str) -> None:
        far = [engine for engine in stale if self._files is not None and self._files.needed_by(engine)]
        files = self._files if self._files is not None and any_rank(bool(far)) else None
        buckets = self._source.named_buckets(BUCKET_BYTES)
        if files is not None:
            buckets = files.written(buckets, version)
        updates = [(engine, WeightUpdate(engine.client, version)) for engine in stale if engine not in far]
        self._each(updates, lambda update: update.begin())
        with ThreadPoolExecutor(max(1, 2 * len(updates)), "weight-sync") as threads:
            self._stream(updates, buckets, threads)
        self._each(updates, lambda update: update.end())
        if files is not None:
            for engine, error in files.load(far, version):
                self._engines.mark_dead(engine, error)
            files.remove()
        for engine in stale:
            engine.weight_version = version if engine.alive else None

    def _stream(self, updates: Updates, buckets: Iterator[NamedTensors], threads: ThreadPoolExecutor) -> None:
        """Two buckets in turns: while the engines take one, the next is gathered and packed."""
        slots = [_Slot(), _Slot()]
        for number, tensors in enumerate(buckets):
            slot = slots[number % 2]
            self._await(slot)
            alive = [(engine, update) for engine, update in updates if engine.alive]
            if alive:
                for _, update in alive:
                    update.check(tensors)
                slot.bucket.fill(tensors)
                slot.bucket.settle()
                slot.answers = [(engine, threads.submit(update.post, slot.bucket)) for engine, update in alive]
        for slot in slots:
            self._await(slot)

    def _await(self, slot: _Slot) -> None:
        """Until every engine has taken the bucket; one that fails is out."""
        answers, slot.answers = slot.answers, []
        for engine, answer in answers:
            try:
                answer.result()
            except EngineDied as error:
                self._engines.mark_dead(engine, error)

    def _each(self, updates: Updates, act: Callable[[WeightUpdate], None]) -> None:
        """Do it for every engine that is still alive; one that fails is out, the others go on."""
        for engine, update in updates:
            if engine.alive:
                try:
                    act(update)
                except EngineDied as error:
                    self._engines.mark_dead(engine, error)
