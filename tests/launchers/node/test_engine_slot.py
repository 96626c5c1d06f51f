"""What an engine's slot asks of SGLang, by the run file."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import pytest

from common.mistake import Wrong
from core.config import load_run_file
from core.config.layout import nodes
from core.run_dir.attempt_folder import AttemptFolder
from core.sglang.back_ends import Kernels
from launchers.node import engine_slot as engine
from launchers.node.arms import Told
from launchers.node.gpus import EngineGpus, capability_of_engine
from launchers.node.seat import Seat
from launchers.node.slot import ServerSlot
from tests.support.tiny_runs import write_run


@pytest.mark.parametrize("deterministic", [True, False])
def test_gpu_engines_heed_seeds_if_the_run_file_says_so(
    deterministic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file = write_run(tmp_path, placement={"device": "cpu"}, rollout={"deterministic": deterministic})
    config = load_run_file(run_file)
    slot = engine.EngineSlot(config, tmp_path, Seat(1, 0, ("here",), "127.0.0.1", None, "key"), nodes(config)[0], 0)
    monkeypatch.setattr(engine, "resolve_device", lambda _: "cuda")
    try:
        assert ("--enable-deterministic-inference" in slot.command()) == deterministic
    finally:
        slot.close()


def test_an_engine_takes_the_best_kernels_of_its_node_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_run_file(write_run(tmp_path, placement={"device": "cpu"}))
    slot = engine.EngineSlot(config, tmp_path, Seat(1, 0, ("here",), "127.0.0.1", None, "key"), nodes(config)[0], 0)
    monkeypatch.setattr(engine, "resolve_device", lambda _: "cuda")
    monkeypatch.setattr(engine, "capability_of_engine", lambda _: 9.0)
    monkeypatch.setattr(engine, "installed_kernels", lambda: Kernels(fa3=True))
    monkeypatch.setattr(ServerSlot, "start", lambda *_: None)
    try:
        with caplog.at_level("INFO"):
            slot.start(None)  # type: ignore[arg-type]
        assert "--attention-backend fa3" in " ".join(slot.command())
    finally:
        slot.close()
    (note,) = AttemptFolder(tmp_path).engines_notes()
    assert note.read_text().startswith("fa3 attention, pytorch sampling: compute capability 9.0")
    assert f"engine=node0-engine0 computes with {note.read_text()}" in caplog.text


@pytest.mark.parametrize(("weights", "good", "bad"), [("fp8", 9.0, 8.0), ("int8", 8.0, 10.0), ("whole", 9.0, 8.0)])
def test_an_engine_is_in_few_bits_if_the_run_file_says_so_and_its_gpus_compute_in_them(
    weights: str, good: float, bad: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_run_file(write_run(tmp_path, placement={"device": "cpu", "engine_weights": weights}))
    here = (tmp_path, Seat(1, 0, ("here",), "127.0.0.1", None, "key"), nodes(config)[0], 0)
    new, old = engine.EngineSlot(config, *here), engine.EngineSlot(config, *here)
    monkeypatch.setattr(engine, "resolve_device", lambda _: "cuda")
    try:
        monkeypatch.setattr(engine, "capability_of_engine", lambda _: good)
        assert ("--fp8-gemm-backend" in new.command()) == (weights == "fp8")
        assert ("w8a8_int8" in " ".join(new.command())) == (weights == "int8")
        monkeypatch.setattr(engine, "capability_of_engine", lambda _: bad)
        told = rf"{weights} on GPUs of compute capability {re.escape(str(bad))}"
        with pytest.raises(Wrong, match=told) if weights != "whole" else nullcontext():
            old.command()
    finally:
        new.close()
        old.close()


def test_the_nodes_of_an_engine_run_its_programs(tmp_path: Path) -> None:
    placement = {"device": "cpu", "num_nodes": 2, "engine_tensor_parallel": 4, "engine_nodes": 2}
    config = load_run_file(write_run(tmp_path, placement=placement))
    seats = [Seat(1, node, ("a", "b"), f"127.0.0.{1 + node}", None, "key", range(23000, 23200)) for node in (0, 1)]
    first, arm = (engine.engine_slots(config, tmp_path, seat, nodes(config)[seat.node])[0] for seat in seats)
    try:
        assert isinstance(first, engine.EngineSlot)
        assert isinstance(arm, engine.EngineArm)
        assert (first.name, arm.name) == ("node0-engine0", "node0-engine0-arm1")
        host, _, port = first.meeting.partition(":")
        assert (host, int(port) in range(23000, 23200)) == ("127.0.0.1", True)
        assert int(port) != first.port.number
        arm.told = Told(0, first.meeting)
        for rank, slot in enumerate((first, arm)):
            said = " ".join(slot.command())
            assert f"--tp-size 4 --max-running-requests {config.placement.engine_max_running_requests}" in said
            assert f"--nnodes 2 --node-rank {rank} --dist-init-addr {first.meeting}" in said
            assert f"--host 127.0.0.{1 + rank} --port {slot.port.number}" in said
    finally:
        first.close()
        arm.close()


ANSWERS = {
    "two of a kind": ("GPU-a, 100, 200, 9.0\nGPU-b, 100, 200, 9.0\n", 9.0),
    "the older": ("GPU-a, 100, 200, 9.0\nGPU-b, 100, 200, 8.0\n", 8.0),
    "one untold": ("GPU-a, 100, 200, 9.0\nGPU-b, 100, 200, [N/A]\n", None),
    "one missing": ("GPU-a, 100, 200, 9.0\n", None),
    "no answer": ("", None),
}


@pytest.mark.parametrize(("said", "capability"), ANSWERS.values(), ids=ANSWERS)
def test_the_least_compute_capability_of_its_gpus_counts(
    said: str, capability: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = tmp_path / "nvidia-smi"
    stand_in.write_text(f"#!/bin/sh\n[ \"${{3#--id=}}\" = GPU-a,GPU-b ] || exit 9\nprintf '{said}'\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert capability_of_engine(EngineGpus(("GPU-a", "GPU-b"))) == capability
