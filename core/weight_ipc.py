"""Weights for engines on the GPUs of trainer ranks: a buffer that the engine opens (CUDA IPC; CPU: shared memory)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from core.engines import Engine, Engines
from core.sglang.payload import Bucket, NamedTensors
from core.weight_updates import Answer, WeightUpdates


@dataclass
class _Slot:
    """A bucket, and the engines that are taking it."""

    bucket: Bucket = field(default_factory=Bucket)
    answers: list[Answer] = field(default_factory=list)


class WeightIpc:
    """Two buckets in turns: while the engines take one, the next is gathered and packed. Collective: none."""

    def __init__(self, registry: Engines, names: Collection[str] | None = None) -> None:
        """Args:
        names: the engines on GPUs of trainer ranks of this host; None: all that this rank drives.
        """
        self._registry = registry
        self._names = names

    def takes(self, engine: Engine) -> bool:
        """Engines on these GPUs."""
        return self._names is None or engine.name in self._names

    def begin(self, engines: Sequence[Engine], version: str) -> None:
        """Open an update on each."""
        self._updates = WeightUpdates(self._registry, engines, version)
        self._slots = [_Slot(), _Slot()]
        self._threads = ThreadPoolExecutor(max(1, 2 * len(engines)), "weight-ipc")

    def post(self, tensors: NamedTensors) -> None:
        """Pack a bucket and have all engines take it at the same time."""
        slot = self._slots[0]
        self._updates.settle(slot.answers)
        slot.answers = []
        if takers := self._updates.alive():
            self._updates.check(tensors)
            slot.bucket.fill(tensors)
            slot.bucket.settle()
            slot.answers = [(engine, self._threads.submit(update.post, slot.bucket)) for engine, update in takers]
        self._slots.reverse()

    def end(self) -> None:
        """Close the updates; the buffers go."""
        for slot in self._slots:
            self._updates.settle(slot.answers)
        self._threads.shutdown()
        self._slots = []
        self._updates.end()
