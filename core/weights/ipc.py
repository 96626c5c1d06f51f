"""Weights for engines on the GPUs of trainer ranks: a buffer that the engine opens (CUDA IPC; CPU: shared memory).

Every rank whose GPU has engine processes on it fills a bucket of its own for them, as every rank gets every tensor:
nothing crosses from one GPU to another, and an engine's memory may be of a kind that no other GPU can write to. The
driver, which alone talks to the engines, collects the texts that name the buckets:

    driver                                          every rank of the node
    the engines have answered for this slot ──────► so many readers: fill the bucket
    the first time: the engines are open    ──────► so many readers still live: a text for each
    each engine gets the text of the rank on        ◄────── texts
    the GPU of each of its processes

Engines are opened while the first bucket is gathered and packed: where the model is small that takes as long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from core.engines.roster import Engine, Engines
from core.processes.node_ranks import NodeRanks
from core.sglang.payload import Bucket, NamedTensors
from core.weights.updates import Answer, WeightUpdates

ALONE = NodeRanks()
Serving = Callable[[Engine], Sequence[int]]  # the local rank that serves each tensor-parallel rank of an engine


def first_rank(engine: Engine) -> Sequence[int]:
    """The driver serves all of them."""
    return [0] * engine.client.capabilities().tensor_parallel


@dataclass
class _Slot:
    """A bucket, and the engines that are taking it."""

    bucket: Bucket = field(default_factory=Bucket)  # knows from one sync to the next where tensors lie in it
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
        self._slots = [_Slot(), _Slot()]

    def takes(self, engine: Engine) -> bool:
        """Engines on these GPUs."""
        return self._names is None or engine.name in self._names

    def begin(self, engines: Sequence[Engine], version: str) -> None:
        """Open an update on each; `post` waits for it."""
        self._updates = WeightUpdates(self._registry, engines, version)
        self._opening: list[Answer] = []
        self._empty()  # a sync that failed has left something
        self._threads = ThreadPoolExecutor(max(1, 2 * len(engines)), "weight-ipc")
        self._servers: dict[str, Sequence[int]] = {}
        self._ranks = self._node
        num_readers = self._ranks.from_driver(self._open)
        if not any(num_readers[1:]):
            self._ranks = ALONE
        self._replayed = bool(self._from_driver(self._all_replay))

    def post(self, tensors: NamedTensors) -> None:
        """Pack a bucket and have all engines take it at the same time."""
        slot = self._slots[0]
        num_readers = self._from_driver(partial(self._free, slot))
        if num_readers:
            slot.bucket.fill(tensors)
        num_readers = self._from_driver(partial(self._check, tensors))
        texts = _texts(slot.bucket, num_readers, self._replayed)
        slot.answers = self._send([data.decode().split() for data in self._ranks.to_driver(" ".join(texts).encode())])
        self._slots.reverse()

    def end(self) -> None:
        """Close the updates; the buffers go."""
        self._ranks.from_driver(self._close)
        self._threads.shutdown()
        self._empty()

    def _empty(self) -> None:
        for slot in self._slots:
            slot.bucket.release()
            slot.answers = []

    def _from_driver(self, count: Callable[[], Sequence[int]]) -> int:
        """What it counts for this rank."""
        return self._ranks.from_driver(count)[self._ranks.local_rank]

    def _open(self) -> list[int]:
        self._opening = self._updates.opening()
        self._servers = {engine.name: self._serving(engine) for engine, _ in self._updates.alive()}
        return self._num_readers()

    def _all_replay(self) -> list[int]:
        """Whether all engines have our loader; other ranks cannot ask them."""
        replay = all(engine.client.capabilities().replays_weights for engine, _ in self._updates.alive())
        return [int(replay)] * self._ranks.size

    def _free(self, slot: _Slot) -> list[int]:
        """Once the engines have answered for what is in the slot: who will read what comes next."""
        self._updates.settle(slot.answers)
        slot.answers = []
        return self._num_readers()

    def _check(self, tensors: NamedTensors) -> list[int]:
        """Once the engines are open, and may have what comes next: who will read it."""
        self._await_opening()
        self._updates.check(tensors)
        return self._num_readers()

    def _close(self) -> list[int]:
        self._await_opening()
        for slot in self._slots:
            self._updates.settle(slot.answers)
        self._updates.end()
        return [0] * self._ranks.size

    def _await_opening(self) -> None:
        """An engine that dies of it is left out from here on: texts are for readers that live."""
        opening, self._opening = self._opening, []
        self._updates.settle(opening)

    def _num_readers(self) -> list[int]:
        """Of each rank's bucket."""
        counts = Counter(rank for engine, _ in self._updates.alive() for rank in self._servers[engine.name])
        return [counts[rank] for rank in range(self._ranks.size)]

    def _send(self, texts: Sequence[Sequence[str]]) -> list[Answer]:
        """Args: texts: of each rank, as many as it has readers; none where no engine is driven."""
        unused = [iter(of_one) for of_one in texts]
        alone = not self._slots[1].answers
        answers = []
        for engine, update in self._updates.alive():
            own = [next(unused[rank]) for rank in self._servers[engine.name]]
            answers.append(
                (engine, self._threads.submit(update.post, own, self._replayed, alone and update.may_stamp()))
            )
        return answers


def _texts(bucket: Bucket, num_readers: int, replayed: bool) -> list[str]:
    """One for each reader of a bucket that was filled."""
    if num_readers:
        bucket.settle()
    return [bucket.serialize(replayed) for _ in range(num_readers)]
