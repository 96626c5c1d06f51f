"""`ebbtide` with stand-ins for Slurm's commands, for tests without a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.stand_in_commands import calls, stand_in
from tests.support.waiting import COMMAND_S

__all__ = ["ROOT", "calls", "ebbtide_with", "stand_in"]

ROOT = Path(__file__).parents[2]


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
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=COMMAND_S)
