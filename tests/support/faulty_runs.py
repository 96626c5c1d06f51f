"""Where a run is, for those who disturb it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from common.waiting import wait_until
from tests.support.tiny_runs import times_entered


def wait_for_phase(run_dir: Path, phase: str, command: subprocess.Popen[bytes], after: int = 0) -> None:
    """Until the run is there, having been there `after` times before; the run's own output if it ends before."""

    def reached() -> bool:
        return times_entered(run_dir, phase) > after

    assert wait_until(lambda: reached() or command.poll() is not None, 300)
    assert reached(), (run_dir.parent / "log").read_text()


def member_pid(run_dir: Path, text: str) -> int:
    """The pid that the agent's log gives for a name such as engine=node0-engine0."""
    lines = (run_dir / "attempts/1/agent-0.log").read_text().splitlines()
    line = next(line for line in lines if text in line and "pid=" in line)
    return int(line.partition("pid=")[2].split()[0])
