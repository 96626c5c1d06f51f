"""Waiting for what another thread or process does."""

from __future__ import annotations

from collections.abc import Callable

from common import waiting

DEADLINE_S = 180.0
COMMAND_S = 600.0  # for a command that computes: beside the long tests it may have a tenth of a processor


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Up to three minutes, with the machine busy; then an AssertionError that says what did not come."""
    assert waiting.wait_until(condition, DEADLINE_S, 0.02), f"still not after {DEADLINE_S:.0f} s: {what}"
