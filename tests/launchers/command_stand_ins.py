"""Slurm's commands as small shell scripts, for tests without a cluster; each call is noted in `calls`."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def stand_in(folder: Path, name: str, body: str) -> None:
    """A command that notes its arguments and then does `body`."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / name
    script.write_text(f'#!/bin/bash\necho "{name} $*" >> {folder}/calls\n{body}\n')
    script.chmod(stat.S_IRWXU)


def calls(folder: Path) -> list[str]:
    """What was called, in order."""
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def ebbtide_with(
    folder: Path, *words: str, cwd: Path, env: Mapping[str, str] | None = None, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """The command with `folder` first on PATH; `before` is Python that runs ahead of it."""
    code = f"{before}\nimport sys; sys.argv[0] = 'ebbtide'\nfrom launchers.cli import main; main()"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "EBBTIDE_SITE"))},
        **{"PATH": f"{folder}:{Path(sys.executable).parent}:/usr/bin:/bin", "COLUMNS": "200"},
        **{"PYTHONPATH": str(ROOT), "HOME": str(cwd)},
        **(env or {}),
    }
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=120)
