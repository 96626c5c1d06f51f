"""Which way weights take to which engine, what happens if some got none of them, and what a check says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from core.engines.roster import Engine
from core.weights.check import WeightsDiffer, compare
from core.weights.sync import MAX_ROUNDS, WeightSync
from tests.support.fake_engines import FakeEngines

TENSORS = [("a", torch.zeros(2)), ("b", torch.ones(3))]


class Source:
    def named_buckets(self, max_bytes: int) -> Iterator[list[tuple[str, torch.Tensor]]]:
        yield from ([tensor] for tensor in TENSORS)


class FakeTransport:
    """Takes engines by how their names begin; its first `failures` deliveries bring nothing."""

    def __init__(self, letter: str, failures: int = 0) -> None:
        self.letter, self.failures = letter, failures
        self.log: list[Any] = []

    def takes(self, engine: Engine) -> bool:
        return engine.name.startswith(self.letter)

    def open(self, engines: Sequence[Engine], version: str) -> FakeDelivery:
        self.failures -= 1
        self.log.append([engine.name for engine in engines])
        return FakeDelivery(engines, version if self.failures < 0 else None, self.log)


class FakeDelivery:
    def __init__(self, engines: Sequence[Engine], brings: str | None, log: list[Any]) -> None:
        self.engines, self.brings, self.log = engines, brings, log

    def post(self, tensors: Any) -> None:
        self.log.append(tensors[0][0])

    def close(self) -> None:
        for engine in self.engines:
            engine.weight_version = self.brings


@pytest.fixture(autouse=True)
def _one_rank(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_each_engine_is_reached_by_the_first_way_that_takes_it_and_all_ways_take_part() -> None:
    engines: Any = FakeEngines({"near0": "host", "far0": "host", "near1": "host"})
    ways = [FakeTransport("near"), FakeTransport(""), FakeTransport("far")]
    checked: list[Any] = []
    sync = WeightSync(Source(), engines, ways, lambda _, some, version: checked.append((len(some), version)))
    assert [sync.push("step1"), sync.push("step1")] == [True, False]
    assert [way.log for way in ways] == [[["near0", "near1"], "a", "b"], [["far0"], "a", "b"], [[], "a", "b"]]
    assert checked == [(3, "step1")]


def test_engines_that_lost_what_was_under_way_get_it_again() -> None:
    engines: Any = FakeEngines({"near": "host", "far": "host"})
    near, far = FakeTransport("near"), FakeTransport("far", failures=1)
    assert WeightSync(Source(), engines, [near, far]).push("step1")
    assert [engine.weight_version for engine in engines.alive()] == ["step1", "step1"]
    assert near.log == [["near"], "a", "b", [], "a", "b"]


def test_an_engine_that_never_gets_them_is_given_up() -> None:
    engines: Any = FakeEngines({"far": "host"})
    far = FakeTransport("far", failures=MAX_ROUNDS)
    assert WeightSync(Source(), engines, [far]).push("step1")
    assert engines.alive() == []
    assert far.log.count(["far"]) == MAX_ROUNDS


def test_checksums_that_differ_are_named() -> None:
    wanted = {f"w{i}@0": str(i) for i in range(8)}
    compare("e", "step3", dict(wanted), wanted)
    with pytest.raises(WeightsDiffer, match=r"engine e, version step3: 7 of its 8 tensors .*\(w1@0, .*w5@0, …\)"):
        compare("e", "step3", {"w0@0": "0", "w1@0": "7"}, wanted)
    with pytest.raises(WeightsDiffer, match="0 of its 0"):
        compare("e", "step3", {}, {})
