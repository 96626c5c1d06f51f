"""Weights for engines on the GPUs of trainer ranks: a buffer that the engine opens (CUDA IPC; CPU: shared memory).

Every rank whose GPU has engine processes on it fills a bucket of its own for them, as every rank gets every tensor:
nothing crosses from one GPU to another, and an engine's memory may be of a kind that no other GPU can write to. The
driver, which alone talks to the engines, collects the texts that name the buckets:

    driver                                          every rank of the node
    the engines have answered for this slot ──────► number of readers: fill the bucket
    the first time: the engines are open    ──────► number of living readers: a text for each
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
from core.weights.receivers import Answer, Receivers

ALONE = NodeRanks()
Serving = Callable[[Engine], Sequence[int]]  # the local rank that serves each tensor-parallel rank of an engine


def first_rank(engine: Engine) -> Sequence[int]:
    """The driver serves all of them."""
    return [0] * engine.client.capabilities().tensor_parallel


class WeightIpc:
    """Two buckets of this rank, one sync after the other.

    Collective: the trainer ranks of a node; where the driver serves all engines of a sync, only `open`. What the
    driver raises it raises alone, after it has told the others: `DriverFailed` there.
    """

    def __init__(
        self,
        registry: Engines,
        names: Collection[str] | None = None,
        ranks: NodeRanks = ALONE,
        serving: Serving = first_rank,
    ) -> None:
        """Make the two buckets of this rank.

        Args:
        names: the engines on GPUs of trainer ranks of this host; None: all that this rank drives.
        ranks: of this node.
        serving: asked on the driver.
        """
        self._registry = registry
        self._names = names
        self._node = ranks
        self._serving = serving
        self._buckets = [Bucket(), Bucket()]  # they know from one sync to the next where tensors lie in them

    def takes(self, engine: Engine) -> bool:
        """Engines on these GPUs."""
        return self._names is None or engine.name in self._names

    def open(self, engines: Sequence[Engine], version: str) -> IpcDelivery:
        """Open an update on each engine; the first `post` waits for it."""
        for bucket in self._buckets:
            bucket.release()  # a sync that failed has left something
        driver = _Driver(Receivers(self._registry, engines, version), self._serving, self._node.size)
        num_readers = self._node.on_driver(driver.open)
        ranks = self._node if any(num_readers[1:]) else ALONE
        return IpcDelivery(self._buckets, driver, ranks, replayed=ranks.on_driver(driver.all_replay))


@dataclass
class _Slot:
    """A bucket, and the engines that are taking it."""

    bucket: Bucket
    answers: list[Answer] = field(default_factory=list)


class IpcDelivery:
    """One version on its way. Two buckets in turns: while the engines take one, the next is gathered and packed."""

    def __init__(self, buckets: Sequence[Bucket], driver: _Driver, ranks: NodeRanks, *, replayed: bool) -> None:
        """Begin a delivery; nothing is packed yet.

        Args:
        buckets: two, of this rank.
        ranks: those that serve the engines of this sync.
        replayed: whether the buckets are for our loader in the engines.
        """
        self._slots = [_Slot(bucket) for bucket in buckets]
        self._driver = driver
        self._ranks = ranks
        self._replayed = replayed

    def post(self, tensors: NamedTensors) -> None:
        """Pack a bucket and have all engines take it at the same time."""
        slot, other = self._slots
        if self._num_readers(partial(self._driver.settle, slot.answers)):
            slot.bucket.fill(tensors)
        num_readers = self._num_readers(partial(self._driver.check, tensors))
        texts = _texts(slot.bucket, num_readers, self._replayed)
        of_ranks = [data.decode().split() for data in self._ranks.to_driver(" ".join(texts).encode())]
        slot.answers = self._driver.send(of_ranks, replayed=self._replayed, alone=not other.answers)
        self._slots.reverse()

    def close(self) -> None:
        """Close the updates; the buffers go."""
        under_way = [answer for slot in self._slots for answer in slot.answers]
        self._ranks.on_driver(partial(self._driver.close, under_way))
        for slot in self._slots:
            slot.bucket.release()

    def _num_readers(self, act: Callable[[], Sequence[int]]) -> int:
        """The driver does its part; how many readers this rank's bucket has then."""
        return self._ranks.on_driver(act)[self._ranks.local_rank]


class _Driver:
    """The engines' side of a delivery. All ranks of the node have one; that of the driver alone has engines."""

    def __init__(self, receivers: Receivers, serving: Serving, num_ranks: int) -> None:
        self._receivers = receivers
        self._serving = serving
        self._num_ranks = num_ranks
        self._opening: list[Answer] = []
        self._servers: dict[str, Sequence[int]] = {}  # engine -> the local rank that serves each of its own
        self._threads = ThreadPoolExecutor(max(1, 2 * len(receivers.alive())), "weight-ipc")

    def open(self) -> list[int]:
        """Begin to open the engines. Returns: how many readers each rank's buckets will have."""
        self._opening = self._receivers.opening()
        self._servers = {engine.name: self._serving(engine) for engine, _ in self._receivers.alive()}
        return self._num_readers()

    def all_replay(self) -> bool:
        """Whether all engines have our loader; other ranks cannot ask them."""
        return all(engine.client.capabilities().replays_weights for engine, _ in self._receivers.alive())

    def settle(self, answers: Sequence[Answer]) -> list[int]:
        """Wait until the engines have taken a bucket. Returns: how many readers each rank's next one will have."""
        self._receivers.settle(answers)
        return self._num_readers()

    def check(self, tensors: NamedTensors) -> list[int]:
        """Tick off what comes next, once the engines are open. Returns: how many readers each rank's bucket has."""
        self._await_opening()
        self._receivers.check(tensors)
        return self._num_readers()

    def send(self, texts: Sequence[Sequence[str]], *, replayed: bool, alone: bool) -> list[Answer]:
        """Have the engines take a bucket; returns at once.

        Args:
            texts: of each rank, one for each reader of its bucket; none where no engine is driven.
            alone: no other bucket is under way.
        """
        unused = [iter(of_one) for of_one in texts]
        answers = []
        for engine, update in self._receivers.alive():
            own = [next(unused[rank]) for rank in self._servers[engine.name]]
            stamps = alone and update.may_stamp()
            answers.append((engine, self._threads.submit(update.post, own, replayed, stamps)))
        return answers

    def close(self, under_way: Sequence[Answer]) -> None:
        """Close the updates once the engines have taken everything."""
        self._await_opening()
        self._receivers.settle(under_way)
        self._receivers.end()
        self._threads.shutdown()

    def _await_opening(self) -> None:
        """An engine that dies of it is left out from here on: texts are for readers that live."""
        opening, self._opening = self._opening, []
        self._receivers.settle(opening)

    def _num_readers(self) -> list[int]:
        counts = Counter(rank for engine, _ in self._receivers.alive() for rank in self._servers[engine.name])
        return [counts[rank] for rank in range(self._num_ranks)]


def _texts(bucket: Bucket, num_readers: int, replayed: bool) -> list[str]:
    """One for each reader of a bucket that was filled."""
    if num_readers:
        bucket.settle()
    return [bucket.serialize(replayed) for _ in range(num_readers)]
