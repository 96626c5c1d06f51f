"""Weights for engines on the GPUs of trainer ranks: a buffer that the engine opens (CUDA IPC; CPU: shared memory).

Every rank whose GPU has engine processes on it fills a bucket of its own for them, as every rank gets every tensor:
nothing crosses from one GPU to another, and an engine's memory may be of a kind that no other GPU can write to. The
driver, which alone talks to the engines, collects the texts that name the buckets:

    driver                                          every rank of the node
    the engines have answered for this slot ──────► so many readers: fill the bucket, a text for each
    each engine gets the text of the rank on        ◄────── texts
    the GPU of each of its processes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from core.engines import Engine, Engines
from core.node_ranks import NodeRanks
from core.sglang.payload import Bucket, NamedTensors
from core.weight_updates import Answer, WeightUpdates

ALONE = NodeRanks()
Serving = Callable[[Engine], Sequence[int]]  # the local rank that serves each tensor-parallel rank of an engine


def first_rank(engine: Engine) -> Sequence[int]:
    """The driver serves all of them."""
    return [0] * engine.client.capabilities().tensor_parallel


@dataclass
class _Slot:
    """A bucket, and the engines that are taking it."""

    bucket: Bucket = field(default_factory=Bucket)
    answers: list[Answer] = field(default_factory=list)


class WeightIpc:
    """Two buckets in turns: while the engines take one, the next is gathered and packed.

    Collective: the trainer ranks of a node; where the driver serves all engines of a sync, only `begin`. What the
    driver raises it raises alone, after it has told the others: `DriverFailed` there.
    """

    def __init__(
        self,
        registry: Engines,
        names: Collection[str] | None = None,
        ranks: NodeRanks = ALONE,
        serving: Serving = first_rank,
    ) -> None:
        """Args:
        names: the engines on GPUs of trainer ranks of this host; None: all that this rank drives.
        ranks: of this node.
        serving: asked on the driver.
        """
        self._registry = registry
        self._names = names
        self._node = ranks
        self._serving = serving

    def takes(self, engine: Engine) -> bool:
        """Engines on these GPUs."""
        return self._names is None or engine.name in self._names

    def begin(self, engines: Sequence[Engine], version: str) -> None:
        """Open an update on each."""
        self._updates = WeightUpdates(self._registry, engines, version)
        self._slots = [_Slot(), _Slot()]
        self._threads = ThreadPoolExecutor(max(1, 2 * len(engines)), "weight-ipc")
        self._servers: dict[str, Sequence[int]] = {}
        self._ranks = self._node
        self._replayed = bool(self._ranks.from_driver(self._all_replay)[self._ranks.local_rank])
        num_readers = self._ranks.from_driver(self._open)
        if not any(num_readers[1:]):
            self._ranks = ALONE

    def post(self, tensors: NamedTensors) -> None:
        """Pack a bucket and have all engines take it at the same time."""
        slot = self._slots[0]
        num_readers = self._ranks.from_driver(partial(self._free, slot, tensors))[self._ranks.local_rank]
        texts = _pack(slot.bucket, tensors, num_readers, self._replayed)
        slot.answers = self._send([data.decode().split() for data in self._ranks.to_driver(" ".join(texts).encode())])
        self._slots.reverse()

    def end(self) -> None:
        """Close the updates; the buffers go."""
        self._ranks.from_driver(self._close)
        self._threads.shutdown()
        self._slots = []

    def _open(self) -> list[int]:
        self._updates.begin()
        self._servers = {engine.name: self._serving(engine) for engine, _ in self._updates.alive()}
        return self._num_readers()

    def _all_replay(self) -> list[int]:
        """Whether all engines have our loader; other ranks cannot ask them."""
        replay = all(engine.client.capabilities().replays_weights for engine, _ in self._updates.alive())
        return [int(replay)] * self._ranks.size

    def _free(self, slot: _Slot, tensors: NamedTensors) -> list[int]:
        """Once the engines have answered for what is in the slot: who will read what comes next."""
        self._updates.settle(slot.answers)
        slot.answers = []
        self._updates.check(tensors)
        return self._num_readers()

    def _close(self) -> list[int]:
        for slot in self._slots:
            self._updates.settle(slot.answers)
        self._updates.end()
        return [0] * self._ranks.size

    def _num_readers(self) -> list[int]:
        """Of each rank's bucket."""
        counts = Counter(rank for engine, _ in self._updates.alive() for rank in self._servers[engine.name])
        return [counts[rank] for rank in range(self._ranks.size)]

    def _send(self, texts: Sequence[Sequence[str]]) -> list[Answer]:
        """Args: texts: of each rank, as many as it has readers; none where no engine is driven."""
        unused = [iter(of_one) for of_one in texts]
        answers = []
        for engine, update in self._updates.alive():
            own = [next(unused[rank]) for rank in self._servers[engine.name]]
            answers.append((engine, self._threads.submit(update.post, own, self._replayed)))
        return answers


def _pack(bucket: Bucket, tensors: NamedTensors, num_readers: int, replayed: bool) -> list[str]:
    """A text for each reader."""
    if num_readers:
        bucket.fill(tensors)
        bucket.settle()
    return [bucket.serialize(replayed) for _ in range(num_readers)]
