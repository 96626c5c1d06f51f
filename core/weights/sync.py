"""Weight sync: the trainer's parameters, bucket by bucket, into every engine that does not have them yet.

Buckets are made once, for all engines. How they reach one is its transport's affair; there are three of them:

    engine                                  transport
    on the GPUs of trainer ranks here       `ipc`: a buffer of the rank on its GPU (CUDA IPC; CPU: shared memory)
    on GPUs of its own, here or elsewhere   `broadcast`: a process group with its driver (NCCL; CPU: gloo)
    the same, if the run file says files    `files`: files of the run directory

    open ──► post, post, … ──► close        one delivery: the buckets of one version, by one transport
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Protocol

from torch import Tensor
from torch.profiler import record_function

from core.engines.roster import Engine, Engines
from core.processes.collective import any_rank
from core.residency.machine import Residency
from core.run_dir.trace_names import bucket_range
from core.sglang.engine_sizes import BUCKET_BYTES
from core.sglang.errors import EngineDied
from core.sglang.payload import NamedTensors

MAX_ROUNDS = 3  # of one sync: when an engine dies, others may have lost what was under way

log = logging.getLogger(__name__)


class Sync(Protocol):
    """Whoever sees that engines have the weights that they are asked to answer with."""

    def push(self, version: str) -> bool:
        """Bring every live engine of every node to `version`; whether any needed it. Collective: all trainer ranks."""
        ...


class WeightSource(Protocol):
    """Who has the weights: the trainer."""

    def named_buckets(self, max_bytes: int) -> Iterator[list[tuple[str, Tensor]]]:
        """Full tensors under HuggingFace names, in a fixed order. Collective: every trainer rank must iterate."""
        ...


class Delivery(Protocol):
    """One version on its way to some engines. Collective: as its transport.

    An engine that dies over it is marked dead and the others go on; an engine that refuses ends the run.
    """

    def post(self, tensors: NamedTensors) -> None:
        """Send one bucket to all of them; returns when the tensors are no longer needed."""
        ...

    def close(self) -> None:
        """Return when every engine that is alive says that it has the version, or has lost what was under way."""
        ...


class Transport(Protocol):
    """A way for weights to reach engines. Collective: all trainer ranks open, post and close, also without an engine
    for it.
    """

    def takes(self, engine: Engine) -> bool:
        """Whether this is the way to that engine."""
        ...

    def open(self, engines: Sequence[Engine], version: str) -> Delivery:
        """Prepare this rank's engines for a new version."""
        ...


class Check(Protocol):
    """Proves that engines have what they were sent. Collective: all trainer ranks."""

    def __call__(self, source: WeightSource, engines: Sequence[Engine], version: str) -> None:
        """Raise `WeightsDiffer` if one of this rank's engines has not."""
        ...


class WeightSync:
    """Trainer to engines. Collective: every trainer rank calls `push`; only drivers talk to engines."""

    def __init__(
        self,
        source: WeightSource,
        engines: Engines,
        transports: Sequence[Transport],
        check: Check | None = None,
        residency: Residency | None = None,
    ) -> None:
        """Keep the parts of a sync.

        Args:
        transports: an engine is reached by the first that takes it.
        residency: where GPUs are shared: an engine may need weights amid a rollout, and gets the memory for them.
        """
        self._source = source
        self._engines = engines
        self._transports = tuple(transports)
        self._check = check
        self._residency = residency

    def push(self, version: str) -> bool:
        """Bring every live engine of every node to `version`.

        Returns:
            whether any engine needed it; False costs one small collective and moves nothing.
        Collective: all trainer ranks.
        """
        self._engines.adopt_restarted()
        if not any_rank(bool(self._stale(version))):
            return False
        with self._residency.borrowed("sync") if self._residency else nullcontext():
            for _ in range(MAX_ROUNDS):
                self._send_all(self._stale(version), version)
                if not any_rank(bool(self._stale(version))):
                    return True
        for engine in self._stale(version):
            self._engines.mark_dead(engine, EngineDied(f"{engine.name} took no weights in {MAX_ROUNDS} attempts"))
        return True

    def _send_all(self, stale: Sequence[Engine], version: str) -> None:
        deliveries = [
            transport.open([engine for engine in stale if self._way_to(engine) is transport], version)
            for transport in self._transports
        ]
        for tensors in self._source.named_buckets(BUCKET_BYTES):
            with record_function(bucket_range(sum(tensor.nbytes for _, tensor in tensors))):
                for delivery in deliveries:
                    delivery.post(tensors)
        for delivery in deliveries:
            delivery.close()
        if self._check is not None:
            self._check(self._source, [engine for engine in stale if engine.weight_version == version], version)

    def _stale(self, version: str) -> list[Engine]:
        return [engine for engine in self._engines.alive() if engine.weight_version != version]

    def _way_to(self, engine: Engine) -> Transport:
        return next(transport for transport in self._transports if transport.takes(engine))
