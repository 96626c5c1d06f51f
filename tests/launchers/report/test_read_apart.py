from __future__ import annotations

import os
import signal
import time

import pytest

from launchers.report.read_apart import Unreadable, read_apart


def test_values_come_back_as_plain_ones() -> None:
    assert read_apart(lambda: {"a": [1, "ü\ud800", None], "pid": os.getpid() == os.getppid()}, 60) == {
        "a": [1, "ü\ud800", None],
        "pid": False,
    }
    assert len(read_apart(lambda: "x" * 10_000_000, 60)) == 10_000_000


def raises() -> None:
    raise ValueError("its first line\nits second")


@pytest.mark.parametrize(
    ("read", "timeout_s", "says"),
    [
        (raises, 60, "its first line$"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), 60, r"ended the process \(SIGKILL\)"),
        (lambda: os._exit(0), 60, r"ended the process \(exit code 0\)"),
        (lambda: time.sleep(600), 0.3, "took longer than 0 s"),
        (lambda: object(), 60, "not JSON serializable"),
    ],
    ids=["an exception", "a crash", "an end", "no end", "no plain value"],
)
def test_whatever_happens_there_is_a_message_here(read, timeout_s: float, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Unreadable, match=says):
        read_apart(read, timeout_s)
