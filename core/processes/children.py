"""Child processes of the node agent: known by pid, logged to a file, dead when the agent is dead."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from common.waiting import wait_until
from core.processes import die_with_parent

SHARED_MEMORY = "/dev/shm"
KILL_DEADLINE_S = 10.0  # how long a process may take to vanish after SIGKILL
WRAPPER = str(Path(die_with_parent.__file__).resolve())


class Child:
    """One child in a session of its own. Must be made by the main thread: the death signal follows the thread."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-E", WRAPPER, str(os.getpid()), *command],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def wait(self, deadline_s: float) -> int:
        """Wait for the end; raises subprocess.TimeoutExpired after the deadline."""
        return self._process.wait(deadline_s)

    def signal(self, number: int) -> None:
        """Send a signal to the child and whatever shares its process group; a dead child is no error."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def stop_all(children: Sequence[Child], grace_s: float) -> None:
    """End children and their process groups: first asked, after the grace period killed. Returns when they are gone."""
    for child in children:
        child.signal(signal.SIGTERM)
    wait_until(lambda: all(child.exit_code() is not None for child in children), grace_s, poll_s=0.05)
    for child in children:
        child.signal(signal.SIGKILL)
        child.wait(KILL_DEADLINE_S)


def shared_memory(pid: int) -> set[Path]:
    """Files in /dev/shm that a process or a descendant holds open: what a killed process cannot take away itself."""
    held: set[Path] = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            held |= {Path(name) for name in _files_of(process.pid) if name.startswith(f"{SHARED_MEMORY}/")}
    return held


def _files_of(pid: int) -> list[str]:
    """Files that a process has mapped or open; empty: it is gone, or another user's. Those without a name are not."""
    process = Path(f"/proc/{pid}")
    found: list[str] = []
    with contextlib.suppress(OSError):  # /proc/PID/maps, as smaps would have the kernel count all pages
        found += [
            words[5] for line in (process / "maps").read_text().splitlines() if len(words := line.split(None, 5)) > 5
        ]
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(descriptor))
    return [name for name in found if not name.endswith(" (deleted)")]


def kill_descendants(deadline_s: float = KILL_DEADLINE_S) -> None:
    """Kill every descendant of this process, adopted orphans included, and reap them."""
    end = time.monotonic() + deadline_s
    while descendants := psutil.Process().children(recursive=True):
        for process in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(descendants, timeout=0.5)
        if time.monotonic() > end:
            alive = ", ".join(str(process.pid) for process in descendants)
            raise RuntimeError(f"processes {alive} survived SIGKILL for {deadline_s:.0f} s")


def log_tail(path: Path, num_lines: int = 15) -> str:
    """The last lines of a log, for a failure record."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-num_lines:])
    except OSError as error:
        return f"({path}: {error.strerror})"
