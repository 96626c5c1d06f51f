"""A sync ends when every engine has answered for every bucket, the last two among them. Engines are doubles."""

from __future__ import annotations

import base64
import pickle
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from core.processes.rendezvous import Address
from core.sglang.capabilities import Capabilities
from core.sglang.errors import EngineDied
from core.weights import kept_group
from core.weights.broadcast import WeightBroadcast
from core.weights.ipc import WeightIpc
from core.weights.sync import Transport
from tests.support.fake_engines import FakeEngines
from tests.support.good_run import SHAPE, write_model
from tests.support.waiting import wait_until

NUM_BUCKETS = 4
LATE_S = 0.3  # how long an engine sits over the late bucket, unless it is told meanwhile that it has everything


class LateClient:
    """An engine that has read the bucket `late` only after `LATE_S`, or dies over it then."""

    base_url = "http://double"

    def __init__(self, model_dir: Path, late: int, dies: bool) -> None:
        self.model_dir, self.late, self.dies = model_dir, late, dies
        self.version = ""
        self.taken: list[int] = []
        self.buffers: list[torch.Tensor] = []  # shared with the sender
        self.taken_when_stamped: list[int] = []
        self.stamped = threading.Event()

    def capabilities(self) -> Capabilities:
        return Capabilities("0", frozenset(), str(self.model_dir), 1, 100, False)

    def post_checked(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/update_weights_from_tensor":
            (text,) = body["serialized_named_tensors"]
            bucket = pickle.loads(base64.b64decode(text))
            self.buffers.append(bucket["flattened_tensor"].view(torch.float32))
            self._take(bucket["metadata"][0].name)
        elif path == "/update_weights_from_distributed":
            self._take(body["names"][0])
        elif path == "/update_weight_version":
            self._stamp(body["new_version"])
        return {"success": True}

    def forget_prefixes(self) -> None:
        pass

    def weight_version(self) -> str:
        return self.version

    def _take(self, name: str) -> None:
        number = int(name[1:])
        if number == self.late:
            self.stamped.wait(LATE_S)
            if self.dies:
                raise EngineDied("killed")
        self.taken.append(number)

    def _stamp(self, version: str) -> None:
        self.version = version
        if not version.endswith("-incomplete"):
            self.taken_when_stamped = sorted(self.taken)
            self.stamped.set()


class FakeGroup:
    """A weight group whose broadcasts have left at once; `seen`: what the engine had taken when each was sent."""

    joined = True
    client: LateClient
    seen: list[list[int]]

    def __init__(self, name: str, sizes: Sequence[int], *_: Any) -> None:
        self.name, self.sizes = name, sizes

    def invitations(self) -> list[dict[str, Any]]:
        return [{} for _ in self.sizes]

    def join(self, answers: Sequence[Future[Any]]) -> None:
        for answer in answers:
            answer.result()

    def broadcast(self, buffer: Any, answers: Sequence[Future[Any]]) -> None:
        self.seen.append(list(self.client.taken))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder, SHAPE, tie_word_embeddings=False)
    save_file({f"w{number}": torch.zeros(4) for number in range(NUM_BUCKETS)}, folder / "model.safetensors")
    return folder


@pytest.fixture(autouse=True)
def group(monkeypatch: pytest.MonkeyPatch) -> type[FakeGroup]:
    monkeypatch.setattr(kept_group, "WeightGroup", FakeGroup)
    FakeGroup.seen = []
    return FakeGroup


def synced(way: str, model_dir: Path, late: int, dies: bool = False) -> tuple[Any, LateClient]:
    """An engine after a sync of four buckets."""
    registry: Any = FakeEngines({"a": "host"})
    (engine,) = registry.engines
    client = FakeGroup.client = engine.client = LateClient(model_dir, late, dies)
    deliver(way_named(way, registry), registry, "v1")
    return engine, client


def way_named(way: str, registry: Any) -> Transport:
    if way == "ipc":
        return WeightIpc(registry)
    return WeightBroadcast(registry, Address("h", 1), "gloo", "rank0")


def deliver(transport: Transport, registry: Any, version: str) -> None:
    """All buckets, from the first to the last answer."""
    delivery = transport.open(registry.alive(), version)
    for number in range(NUM_BUCKETS):
        delivery.post([(f"w{number}", torch.full((4,), float(number)))])
    delivery.close()


@pytest.mark.parametrize("way", ["ipc", "broadcast"])
@pytest.mark.parametrize("late", [NUM_BUCKETS - 2, NUM_BUCKETS - 1])
def test_an_engine_is_told_that_it_has_the_version_once_it_has_taken_all(way: str, late: int, model_dir: Path) -> None:
    engine, client = synced(way, model_dir, late)
    assert client.taken_when_stamped == list(range(NUM_BUCKETS))
    assert (engine.alive, engine.weight_version, client.version) == (True, "v1", "v1")


@pytest.mark.parametrize("way", ["ipc", "broadcast"])
@pytest.mark.parametrize("late", [NUM_BUCKETS - 2, NUM_BUCKETS - 1])
def test_an_engine_that_dies_over_one_of_the_last_buckets_has_not_got_the_version(
    way: str, late: int, model_dir: Path
) -> None:
    engine, client = synced(way, model_dir, late, dies=True)
    assert (engine.alive, engine.weight_version) == (False, None)
    assert client.version == "v1-incomplete"


@pytest.mark.parametrize("way", ["ipc", "broadcast"])
def test_one_way_delivers_one_version_after_the_other_even_if_a_delivery_was_dropped(way: str, model_dir: Path) -> None:
    registry: Any = FakeEngines({"a": "host"})
    (engine,) = registry.engines
    client = FakeGroup.client = engine.client = LateClient(model_dir, -1, dies=False)
    transport = way_named(way, registry)
    transport.open(registry.alive(), "dropped").post([("w0", torch.full((4,), 77.0))])
    wait_until(lambda: client.taken == [0], "the dropped bucket is taken")
    for version in ("v1", "v2"):
        deliver(transport, registry, version)
        assert (client.version, engine.weight_version) == (version, version)
    assert sorted(client.taken) == sorted([0, *range(NUM_BUCKETS), *range(NUM_BUCKETS)])
    for buffer in client.buffers[:1]:
        assert buffer.tolist()[:4] == [77.0] * 4  # an engine may still read what was dropped


def test_a_bucket_is_not_packed_anew_before_the_engine_has_taken_it(group: type[FakeGroup], model_dir: Path) -> None:
    """Of two in turns; the engine may still receive what was broadcast."""
    synced("broadcast", model_dir, late=0)
    assert len(group.seen) == NUM_BUCKETS
    for number, taken in enumerate(group.seen[2:]):
        assert number in taken
