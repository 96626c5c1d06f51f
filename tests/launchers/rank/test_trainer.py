"""How a trainer rank ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import COMMAND_S

ABORTS_AT_EXIT = """
import atexit, os, sys
from launchers.rank.trainer import leave
atexit.register(os.abort)
print("last words")
leave(int(sys.argv[1]))
"""


@pytest.mark.parametrize("exit_code", [0, 1])
def test_nothing_that_happens_at_exit_changes_how_a_rank_ended(exit_code: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        done = subprocess.run([sys.executable, "-c", ABORTS_AT_EXIT, str(exit_code)], stdout=file, timeout=COMMAND_S)
    assert (done.returncode, log.read_text()) == (exit_code, "last words\n")
