from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from pathlib import Path

from common.waiting import wait_until
from tests.support.command_stand_ins import ebbtide_with
from tests.support.histories import began, ended, lines, step, write_history
from tests.support.waiting import DEADLINE_S


def stop(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return ebbtide_with(folder / "bin", "stop", str(folder / "run"), *words, cwd=folder)


def at_work(folder: Path) -> dict[str, object]:
    """The ledger's line of an attempt that works in this process."""
    entry = {**began(1, job=None, host=socket.gethostname(), pid=os.getpid()), "began": time.time() + 1}
    directory = write_history(folder / "run", [entry], [step(0)])
    directory.attempt(1).mkdir(parents=True)
    return entry


def test_it_is_told_and_waited_for(tmp_path: Path) -> None:
    entry = at_work(tmp_path)
    wish, ledger = tmp_path / "run/attempts/1/stop", tmp_path / "run/ledger.jsonl"

    def end() -> None:
        assert wait_until(wish.exists, DEADLINE_S)
        lines(ledger, [entry, ended(1, "interrupted")])

    ending = threading.Thread(target=end)
    ending.start()
    done = stop(tmp_path)
    ending.join()
    assert done.returncode == 0, done.stderr
    assert "attempt 1: interrupted; nothing is saved, so all 1 steps will be done again" in done.stdout


def test_one_that_does_not_end_is_told(tmp_path: Path) -> None:
    at_work(tmp_path)
    done = stop(tmp_path, "--timeout-s", "1")
    assert done.returncode == 1
    assert "found attempt 1 alive after 1 s; wanted an ended one: wait longer" in done.stderr


def test_nothing_at_work_is_nothing_to_stop(tmp_path: Path) -> None:
    write_history(tmp_path / "run", [began(1, job=None), ended(1, "failed")])
    done = stop(tmp_path)
    assert done.returncode == 2
    assert "found a run that is failed; wanted one that is at work" in done.stderr
