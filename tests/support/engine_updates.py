"""Whole weight updates of one engine, bucket by bucket, as tests and benchmarks make them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from core.sglang.client import EngineClient
from core.sglang.errors import EngineDied
from core.sglang.payload import Bucket, NamedTensors
from core.sglang.weights import WeightUpdate


class SendingUpdate(WeightUpdate):
    """An update that sends its buckets one after the other, each when the one before is there."""

    def send(self, tensors: NamedTensors) -> None:
        """Copy tensors into the engine. Raises WeightsRefused, and then nothing of the bucket was sent."""
        self.check(tensors)
        bucket = Bucket()
        bucket.fill(tensors)
        bucket.settle()
        capabilities = self._client.capabilities()
        replayed = capabilities.replays_weights
        self.post([bucket.serialize(replayed) for _ in range(capabilities.tensor_parallel)], replayed, self.may_stamp())


@contextmanager
def updating(
    client: EngineClient, version: str, expected: Mapping[str, tuple[int, ...]] | None = None
) -> Iterator[SendingUpdate]:
    """An open update: ended on leaving, given up on an error."""
    update = SendingUpdate(client, version, expected)
    update.begin()
    try:
        yield update
    except EngineDied:
        raise
    except BaseException:
        update.abandon()
        raise
    update.end()
