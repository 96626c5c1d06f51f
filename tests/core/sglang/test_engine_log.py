"""The exception that ended an engine, in a log of several processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.sglang.engine_log import first_exception
from tests.support.engine_servers import start_engine
from tests.support.tiny_models import tiny_model

STACK = '  File "scheduler.py", line 1, in run\n    run()\n    ^^^^^\n'
BEGIN = "Traceback (most recent call last):\n"
DURING = "During handling of the above exception, another exception occurred:"
SCHEDULER = f"[2026-11-30 23:15:30 TP1] Scheduler hit an exception: {BEGIN}{STACK}"
SERVER = f"{BEGIN}{STACK}RuntimeError: Rank 1 scheduler died during initialization (exit code: -3).\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"{SCHEDULER}RuntimeError: memory is unbalanced\n\n{SERVER}", "RuntimeError: memory is unbalanced"),
        (f"{SCHEDULER}ValueError: one\n\n[2026-11-30 23:15:31 TP0] {SCHEDULER}ValueError: two\n", "ValueError: one"),
        (f"{SCHEDULER}KeyError: 'a'\n\n{DURING}\n\n{BEGIN}{STACK}ValueError: b\n\n{SERVER}", "ValueError: b"),
        (f"{SCHEDULER}torch.OutOfMemoryError: {'a' * 400}\nTried", f"torch.OutOfMemoryError: {'a' * 276}"),
        (f"{SCHEDULER}[2026-11-30 23:15:31] cut off\n", ""),
        (SERVER, ""),  # its end is in the log's last lines anyway
    ],
    ids=["of a scheduler", "the first", "the last of a chain", "long", "cut off", "of the server itself"],
)
def test_it_is_found(text: str, wanted: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"[2026-11-30 23:15:29] begin\n{text}")
    assert first_exception(tmp_path / "log") == wanted


def test_without_a_log_there_is_none(tmp_path: Path) -> None:
    assert first_exception(tmp_path / "none") == ""


@pytest.mark.engine
def test_that_of_a_real_engine_is_found(tmp_path: Path) -> None:
    """Its scheduler cannot read the weights; the server's own traceback tells only that the scheduler died."""
    directory = tiny_model("llama-tied", tmp_path / "model")
    weights = next(directory.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    engine = start_engine(directory, tmp_path / "log")
    try:
        assert engine.process.wait(180) != 0
    finally:
        engine.process.kill()
    assert "SafetensorError" in first_exception(tmp_path / "log")
