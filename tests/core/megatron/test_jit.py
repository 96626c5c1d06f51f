"""Megatron's decorated functions: plain on a CPU, compiled where there is a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.megatron.jit import compiled_on_a_gpu
from tests.support.waiting import COMMAND_S

ROOT = Path(__file__).resolve().parents[3]


def doubled(value: int) -> int:
    return 2 * value


@pytest.mark.parametrize("is_there", [True, False])
def test_a_gpu_decides(monkeypatch: pytest.MonkeyPatch, is_there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    monkeypatch.setattr(torch, "compile", lambda function: (function, "compiled"))
    assert compiled_on_a_gpu(doubled) == ((doubled, "compiled") if is_there else doubled)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_rank_on_a_cpu_starts_without_torchs_compiler() -> None:
    ask = (
        "import sys, core.megatron.trainer; print([m for m in ('megatron.core', 'torch._dynamo') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, timeout=COMMAND_S)
    assert found.stdout.strip() == "['megatron.core']", found.stderr


def test_planning_imports_no_torch() -> None:
    ask = "import sys, core.planner; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, timeout=COMMAND_S)
    assert found.stdout.strip() == "False", found.stderr
