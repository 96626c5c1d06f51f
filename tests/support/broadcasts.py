"""A driver with real engines, and weights to send to them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from core.engines.roster import Engines
from core.processes.rendezvous import Address, Member, Rendezvous
from tests.support.engine_servers import RunningEngine

Tensors = list[tuple[str, torch.Tensor]]


class Source:
    """A trainer of one rank, its weights in buckets of five tensors."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self.between: Callable[[int], object] = lambda _: None

    def named_buckets(self, max_bytes: int) -> Iterator[Tensors]:
        for start in range(0, len(self.tensors), 5):
            self.between(start)
            yield self.tensors[start : start + 5]


@pytest.fixture
def rendezvous(tmp_path: Path) -> Iterator[Rendezvous]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    listener = socket.create_server(("127.0.0.1", 0))
    yield Rendezvous(Address(*listener.getsockname()), 1, "the run's key", listener=listener)
    dist.destroy_process_group()


def publish(rendezvous: Rendezvous, name: str, server: RunningEngine, incarnation: int = 0) -> None:
    url, pid = server.client.base_url, server.process.pid
    rendezvous.publish(Member("engine", name, 1, "far", pid, url, incarnation=incarnation))


def driven(rendezvous: Rendezvous, servers: dict[str, RunningEngine]) -> Engines:
    for name, server in servers.items():
        publish(rendezvous, name, server)
    key = next(iter(servers.values())).spec.api_key or ""
    engines = Engines(rendezvous, list(servers), vocab_size=512, api_key=key, start_s=240, request_s=60)
    engines.start()
    return engines


def clones(tensors: Sequence[tuple[str, torch.Tensor]]) -> Tensors:
    return [(name, tensor.clone()) for name, tensor in tensors]
