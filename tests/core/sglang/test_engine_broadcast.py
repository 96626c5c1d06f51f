"""Weights by broadcast to real servers, over gloo: what arrives, who dies over it, and the proof of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from core.engines.roster import Engine, Engines
from core.processes.rendezvous import Rendezvous
from core.sglang.client import EngineClient
from core.sglang.weights import checksums
from core.weights import kept_group
from core.weights.broadcast import BroadcastDelivery, WeightBroadcast
from core.weights.check import WeightCheck, WeightsDiffer
from core.weights.files import WeightFiles
from core.weights.sync import WeightSync
from tests.support.broadcasts import Source, clones, driven, publish, rendezvous
from tests.support.engine_models import assert_same_model, load, perturbed
from tests.support.engine_servers import RunningEngine, start_engine, wait_up
from tests.support.engine_updates import SendingUpdate
from tests.support.tiny_models import tiny_model

pytestmark = pytest.mark.engine
__all__ = ["rendezvous"]  # a fixture


def broadcast(rendezvous: Rendezvous, engines: Engines, deadline_s: float = 60) -> WeightBroadcast:
    return WeightBroadcast(engines, rendezvous.address, "gloo", "rank0", deadline_s)


def test_two_syncs_of_mixed_precision_through_one_group(qwen3: RunningEngine, rendezvous: Rendezvous) -> None:
    model = load(qwen3.model_dir)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "mlp" in name:
                parameter.copy_(parameter.bfloat16())
    engines = driven(rendezvous, {"a": qwen3})
    way = broadcast(rendezvous, engines)
    source = Source([(n, t.detach().bfloat16() if "mlp" in n else t.detach()) for n, t in model.named_parameters()])
    sync = WeightSync(source, engines, [way])
    assert [sync.push("far-1"), sync.push("far-1")] == [True, False]
    group = way.group.name
    assert_same_model(qwen3.client, model)
    source.tensors = perturbed(model, seed=21)
    assert sync.push("far-2")
    assert way.group.name == group is not None
    assert qwen3.client.weight_version() == "far-2"
    assert_same_model(qwen3.client, model)


@pytest.mark.parametrize(
    ("kind", "tensor", "parameter"),
    [
        ("qwen3", "down_proj.weight", "down_proj.weight"),
        ("qwen3_moe", "experts.3.down_proj.weight", "experts.w2_weight"),
    ],
    ids=["qwen3", "qwen3_moe"],
)
def test_proof_of_a_sync(
    engines: dict[str, RunningEngine], rendezvous: Rendezvous, tmp_path: Path, kind: str, tensor: str, parameter: str
) -> None:
    """Every other sync is checked; a single number that is wrong is found, and named."""
    server = engines[kind]
    registry = driven(rendezvous, {"a": server})
    source = Source(clones(perturbed(load(server.model_dir), seed=22)))
    files = WeightFiles(registry, tmp_path / "sync", server.model_dir)
    spoilt = f"model.layers.1.mlp.{tensor}"

    class SpoilingDelivery(BroadcastDelivery):
        def close(self) -> None:
            super().close()
            wrong = dict(source.tensors)[spoilt].clone()
            wrong[3, 5] += 1e-3
            update = SendingUpdate(server.client, "spoilt", {spoilt: tuple(wrong.shape)})
            update.begin()
            update.send([(spoilt, wrong)])
            update.end()

    class Spoiling(WeightBroadcast):
        spoils = False

        def open(self, engines: Sequence[Engine], version: str) -> BroadcastDelivery:
            delivery = super().open(engines, version)
            return SpoilingDelivery(delivery._receivers, self.group) if self.spoils else delivery

    way = Spoiling(registry, rendezvous.address, "gloo", "rank0")
    sync = WeightSync(source, registry, [way], WeightCheck(registry, files, 2))
    assert sync.push("proven")
    way.spoils = True
    assert sync.push("not looked at")
    with pytest.raises(
        WeightsDiffer, match=rf"engine a, version wrong: 1 of its \d+ tensors .*\.1\.mlp\.{parameter}@0"
    ):
        sync.push("wrong")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("llama", tmp_path_factory.mktemp("model"))


def test_an_engine_that_dies_amid_a_broadcast_is_out_and_its_successor_in(
    model_dir: Path, rendezvous: Rendezvous, tmp_path: Path
) -> None:
    with ExitStack() as stack:

        def start(name: str) -> RunningEngine:
            server = start_engine(model_dir, tmp_path / f"{name}.log")
            stack.callback(server.process.wait, 30)
            stack.callback(server.process.kill)
            return server

        started = {"a": start("a"), "b": start("b")}
        servers = {name: wait_up(server) for name, server in started.items()}
        engines = driven(rendezvous, servers)
        way = broadcast(rendezvous, engines)
        model = load(model_dir)
        source = Source(clones(perturbed(model, seed=23)))
        sync = WeightSync(source, engines, [way])
        assert sync.push("both")
        for server in servers.values():
            assert_same_model(server.client, model)

        source.tensors = clones(perturbed(model, seed=24))
        source.between = lambda start: servers["a"].process.kill() if start == 10 else None
        assert sync.push("survivor")
        assert [(engine.name, engine.weight_version) for engine in engines.alive()] == [("b", "survivor")]
        assert_same_model(servers["b"].client, model)

        source.between = lambda _: None
        successor = start("a2")
        publish(rendezvous, "a", wait_up(successor), incarnation=1)
        source.tensors = clones(perturbed(model, seed=25))
        assert sync.push("both again")
        assert {engine.name: engine.weight_version for engine in engines.alive()} == dict.fromkeys("ab", "both again")
        for server in (successor, servers["b"]):
            assert_same_model(server.client, model)


def test_an_engine_of_two_ranks(model_dir: Path, rendezvous: Rendezvous, tmp_path: Path) -> None:
    """Both are in the group, and each tells checksums of its own part."""
    server = start_engine(model_dir, tmp_path / "tp2.log", tensor_parallel=2)
    try:
        engines = driven(rendezvous, {"d": wait_up(server)})
        model = load(model_dir)
        source = Source(clones(perturbed(model, seed=27)))
        check = WeightCheck(engines, WeightFiles(engines, tmp_path / "sync", model_dir), 1)
        assert WeightSync(source, engines, [broadcast(rendezvous, engines)], check).push("split")
        assert_same_model(server.client, model)
        ranks = {name.rpartition("@")[2] for name in checksums(server.client)}
        assert ranks == {"0", "1"}
    finally:
        server.process.kill()
        server.process.wait(30)


def test_an_engine_that_hangs_holds_nobody_up(
    engines: dict[str, RunningEngine], rendezvous: Rendezvous, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not answer its invitation: the deadline of the group passes, and it is given up."""

    def hang(self: EngineClient, path: str, body: Any, loads: bool = False) -> Any:
        if path == "/init_weights_update_group":
            return waiting.wait()
        return answer(self, path, body, loads)

    waiting, answer = threading.Event(), EngineClient.post_checked
    monkeypatch.setattr(EngineClient, "post_checked", hang)
    monkeypatch.setattr(kept_group, "GRACE_S", 0.5)
    server = engines["llama-tied"]
    driven_engines = driven(rendezvous, {"c": server})
    source = Source(clones(perturbed(load(server.model_dir), seed=26)))
    assert WeightSync(source, driven_engines, [broadcast(rendezvous, driven_engines, deadline_s=2)]).push("never")
    waiting.set()
    assert driven_engines.alive() == []
