"""NCCL broadcast to a real server that has a GPU of its own, and what becomes of the sender when it dies amid one.

Needs two GPUs and SGLang's CUDA build (tried: 0.5.16). All in one test, because the start takes a minute.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from core.processes.rendezvous import Rendezvous
from core.sglang.client import EngineClient
from core.sglang.launch import EngineSpec, command, environment
from core.weights.broadcast import WeightBroadcast
from core.weights.check import WeightCheck
from core.weights.files import WeightFiles
from core.weights.sync import WeightSync
from tests.support.broadcasts import Source, clones, driven, publish, rendezvous
from tests.support.engine_servers import RunningEngine, free_port, wait_up
from tests.support.gpu_models import perturbed
from tests.support.tiny_models import GPU_SIZES, tiny_model

pytestmark = [pytest.mark.gpu, pytest.mark.engine]
__all__ = ["rendezvous"]  # a fixture
DEADLINE_S = 60.0


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[RunningEngine]]:
    """Two of the same model on the second GPU, started together; groups hold one of them at a time."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    directory = tiny_model("qwen3", tmp_path / "model", **GPU_SIZES)
    started = [start(directory, tmp_path / f"{name}.log") for name in ("first", "second")]
    try:
        yield [wait_up(server) for server in started]
    finally:
        for server in started:
            server.process.kill()
            server.process.wait(30)


def start(directory: Path, log: Path) -> RunningEngine:
    spec = EngineSpec(
        *(log.stem, directory, "cuda", "bfloat16", "127.0.0.1", free_port()),
        memory_fraction=0.3,
        max_total_tokens=16384,
        api_key="key",
        num_threads=4,
    )
    gpu = {"CUDA_VISIBLE_DEVICES": "1", "NCCL_CUMEM_ENABLE": "0", "NCCL_SOCKET_IFNAME": "lo"}
    with log.open("wb") as out:
        process = subprocess.Popen(command(spec), env=environment(spec, {**os.environ, **gpu}), stdout=out, stderr=out)
    return RunningEngine(process, EngineClient(f"http://127.0.0.1:{spec.port}", "key"), spec, log)


def test_proven_syncs_a_death_amid_one_and_the_successor(
    servers: list[RunningEngine], rendezvous: Rendezvous, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("NCCL_CUMEM_ENABLE", "0")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "lo")
    first, second = servers
    model = AutoModelForCausalLM.from_pretrained(first.model_dir, dtype=torch.bfloat16).to("cuda:0")
    engines = driven(rendezvous, {"a": first})
    source = Source(clones(perturbed(model, 1)))
    way = WeightBroadcast(engines, rendezvous.address, "nccl", "rank0", DEADLINE_S)
    check = WeightCheck(engines, WeightFiles(engines, tmp_path / "sync", first.model_dir), 1)
    sync = WeightSync(source, engines, [way], check)
    seconds = []
    for version in ("one", "two", "three"):
        source.tensors = clones(perturbed(model, len(seconds)))
        began = time.monotonic()
        assert sync.push(version)
        seconds.append(round(time.monotonic() - began, 3))
        assert first.client.weight_version() == version
    print(f"proven syncs: {seconds} s")

    source.between = lambda number: first.process.kill() if number == 10 else None
    began = time.monotonic()
    assert sync.push("lost")
    print(f"engine died amid a broadcast: noticed after {time.monotonic() - began:.1f} s")
    assert engines.alive() == []
    assert time.monotonic() - began < 2 * DEADLINE_S
    assert torch.ones(8, device="cuda:0").sum().item() == 8  # this process and its GPU go on

    source.between = lambda _: None
    publish(rendezvous, "a", second, incarnation=1)
    assert sync.push("again")
    assert [(engine.name, engine.weight_version) for engine in engines.alive()] == [("a", "again")]
