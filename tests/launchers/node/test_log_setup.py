"""What processes of a run log, by `logging.level` of the run file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.good_run import RUN_FILE, write_run
from tests.support.waiting import COMMAND_S

SAYS = """
import logging, sys
from pathlib import Path
from core.config.sections.logging import LoggingConfig
from launchers.node.log_setup import start_logging
start_logging(LoggingConfig(level=sys.argv[1]), Path(sys.argv[2]), quiet=sys.argv[3] == "quiet")
for name in ("agent", "httpcore.http11"):
    for say in ("debug", "info", "warning"):
        getattr(logging.getLogger(name), say)(say)
"""
TRAINER = """
import logging, sys
from pathlib import Path
from launchers.rank.trainer import _start_logging
_start_logging(Path(sys.argv[1]), sys.argv[2])
for say in ("debug", "info", "warning"):
    getattr(logging.getLogger("trainer"), say)(say)
"""
LEVELS = {"debug": ["debug", "info", "warning"], "info": ["info", "warning"], "warning": ["warning"]}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("quiet", ["quiet", "first"])
def test_the_least_level_of_our_loggers_and_of_talkative_ones(level: str, quiet: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", SAYS, level, str(tmp_path / "log"), quiet], check=True, timeout=COMMAND_S)
    lines = [line.split()[2:] for line in (tmp_path / "log").read_text().splitlines()]
    assert [words[2] for words in lines if words[1] == "agent"] == (LEVELS[level] if quiet == "first" else ["warning"])
    assert [words[2] for words in lines if words[1] != "agent"] == ["warning"]


@pytest.mark.parametrize(("rank", "wanted"), [("0", LEVELS["debug"]), ("1", ["warning"])])
def test_a_trainer_rank_logs_from_the_run_files_level_on(rank: str, wanted: list[str], tmp_path: Path) -> None:
    write_run(tmp_path, RUN_FILE + "logging:\n  level: debug\n").rename(tmp_path / "run.yaml")
    command = [sys.executable, "-c", TRAINER, str(tmp_path), rank]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=COMMAND_S, env={**os.environ})
    assert [line.split()[-1] for line in done.stderr.splitlines()] == wanted
