"""What an engine's slot asks of SGLang, by the run file."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.config import load_run_file
from core.config.layout import nodes
from launchers.node import engine_slot as engine
from launchers.node.seat import Seat
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
