"""Commands as small shell scripts, for tests without those; each call is noted in `calls` beside them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest


def stand_in(folder: Path, name: str, body: str) -> None:
    """A command that notes its arguments and then does `body`."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / name
    script.write_text(f'#!/bin/bash\necho "{name} $*" >> "{folder}/calls"\n{body}\n')
    script.chmod(stat.S_IRWXU)


def first_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch, **bodies: str) -> None:
    """Commands of these names, found before any other."""
    for name, body in bodies.items():
        stand_in(folder, name, body)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def calls(folder: Path) -> list[str]:
    """What was called, in order."""
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []
