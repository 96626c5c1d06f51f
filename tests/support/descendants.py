"""Descendants of the process that the tests run in: ranks, engines and clusters of other tests are among them."""

from __future__ import annotations

from functools import partial

import pytest

from launchers.foreground import follow
from launchers.node import agent, processes


def spare_descendants(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All of them stay alive where a command or an agent would leave nothing behind; who asked for their end."""
    asked: list[str] = []
    for module in (follow, agent, processes):
        monkeypatch.setattr(module, "kill_descendants", partial(asked.append, module.__name__))
    return asked
