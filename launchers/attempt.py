"""One attempt on this machine: the node agent as a child, the ledger, and what the terminal shows meanwhile."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.die_with_parent import adopt_orphans
from core.progress import ProgressReader
from core.run_directory import RunDirectory
from launchers.children import Child, kill_descendants
from launchers.display import Display
from launchers.failure import Failure

STOP_DEADLINE_S = 30.0
POLL_S = 0.1


class RunBusy(RuntimeError):
    """Another attempt is working in the run directory."""


def run_attempt(directory: RunDirectory, display: Display) -> int:
    """Run the next attempt in the foreground.

    Returns:
        the exit code: 0 complete, 1 failed (the failure is shown), 130 interrupted.
    Raises:
        RunBusy: if another process runs an attempt in this directory.
    """
    with _lock(directory):
        number = directory.next_attempt()
        folder = directory.attempt(number)
        folder.mkdir(parents=True)
        _point_latest_to(folder)
        _note(directory, {"attempt": number, "began": time.time(), "host": socket.gethostname(), "pid": os.getpid()})
        reader = ProgressReader(directory.progress, from_end=True)
        code, how = _watch(_start_agent(directory, number), reader, display)
        failure = _failure(folder)
        _note(directory, {"attempt": number, "ended": time.time(), "how": how, "exit_code": code})
    if how == "failed":
        display.failed(failure, directory.path, folder)
    elif how == "interrupted":
        display.interrupted(directory.path)
    return code


def _start_agent(directory: RunDirectory, number: int) -> Child:
    adopt_orphans()
    log_path = directory.attempt(number) / "agent-0.log"
    command = [sys.executable, "-m", "launchers.agent", "--run-dir", str(directory.path), "--attempt", str(number)]
    env = {**os.environ, "EBBTIDE_API_KEY": secrets.token_hex(24)}
    return Child("agent", command, env, log_path)


def _watch(agent: Child, reader: ProgressReader, display: Display) -> tuple[int, str]:
    """Show events until the agent ends; Ctrl-C and SIGTERM stop it. Returns exit code and how it ended."""
    interrupted = False
    with _interrupts() as pending:
        with display:
            while (code := agent.exit_code()) is None and not pending:
                display.show(reader.new_events())
                time.sleep(POLL_S)
            if code is None:
                interrupted = True
                agent.signal(signal.SIGTERM)
                code = _wait(agent, STOP_DEADLINE_S)
            display.show(reader.new_events())
        kill_descendants()
    if interrupted:
        return 130, "interrupted"
    return (0, "complete") if code == 0 else (1, "failed")


def _wait(agent: Child, deadline_s: float) -> int:
    end = time.monotonic() + deadline_s
    while (code := agent.exit_code()) is None:
        if time.monotonic() > end:
            agent.signal(signal.SIGKILL)
        time.sleep(POLL_S)
    return code


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of dying of them."""
    pending: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, _frame: pending.append(number))
    try:
        yield pending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _lock(directory: RunDirectory) -> Iterator[None]:
    """One attempt at a time; the kernel lets go of the lock when this process ends, however it ends."""
    with (directory.path / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunBusy(f"{directory.path} is in use by another ebbtide process: wait for it, or stop it") from None
        yield


def _point_latest_to(folder: Path) -> None:
    unfinished = folder.parent / f".latest-{os.getpid()}"
    unfinished.symlink_to(folder.name)
    os.replace(unfinished, folder.parent / "latest")


def _note(directory: RunDirectory, entry: dict[str, Any]) -> None:
    with directory.ledger.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def _failure(folder: Path) -> Failure | None:
    path = folder / "failure.json"
    return Failure.read(path) if path.exists() else None
