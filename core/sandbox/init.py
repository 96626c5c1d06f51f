"""Process 1 of the sandbox: it runs one program after the other, bounds each, and leaves nothing of it.

What a program may not use up is held in three ways: by limits of the kernel (`program.py`), by the size of the only
file system that can be written, and by looking, every few milliseconds, at the clock, the output and the memory of all
processes. A program cannot signal, trace or read process 1. Standard library only.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from core.sandbox import program
from core.sandbox.namespaces import exit_after
from core.sandbox.tree import WORK, fresh_work

LOOK_S = 0.02
CHUNK = 65536
OWNER = 0  # descriptor that closes when the caller is gone
TIME, OUTPUT, MEMORY = "time", "output", "memory"  # what a program had no more of
PAGE = os.sysconf("SC_PAGE_SIZE")


def watch_children() -> None:
    """Be woken by the end of a child; be asked to leave by no signal at all."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # for process 1 of a namespace: none of its processes can send it
    signal.signal(signal.SIGCHLD, lambda *_: None)
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    Run.woken = reading


class Run:
    """One program, from its start to the end of its last process."""

    woken: int

    def __init__(self, job: Mapping[str, Any], limits: Mapping[str, Any], looks: bool) -> None:
        """Start it.

        Args:
            job: `code`; `stdin` as text of one character a byte; `timeout_s`.
            looks: whether /proc is there, to add up memory by.
        """
        self._limits, self._looks, self._timeout_s = limits, looks, job["timeout_s"]
        self._stdin = memoryview(job["stdin"].encode("latin-1"))
        with open(f"{WORK}/program.py", "wb") as file:
            file.write(job["code"].encode("utf-8", "surrogatepass"))
        ours, theirs = program.pipes()
        self._begun = time.monotonic()
        self._pid = os.fork()
        if self._pid == 0:
            with exit_after():
                program.become(theirs, limits)
        for one in theirs:
            os.close(one)
        self._input, *self._outputs = ours
        self._said: dict[int, bytearray] = {one: bytearray() for one in self._outputs}
        self._open = set(ours)
        self._exit_code: int | None = None
        self._stopped = ""

    def result(self) -> dict[str, Any]:
        """Wait for the end. Returns: what became of it, as `outside` reads it."""
        poll = select.poll()
        poll.register(self.woken, select.POLLIN)
        poll.register(OWNER, select.POLLIN)
        for one in self._open:
            poll.register(one, select.POLLOUT if one == self._input else select.POLLIN)
        while self._exit_code is None and not self._stopped:
            for one, _ in poll.poll(LOOK_S * 1000):
                if one == OWNER:
                    os._exit(0)  # nobody waits for this
                if one in self._open and not self._moved(one):
                    poll.unregister(one)
                    self._close(one)
            self._look()
        seconds = time.monotonic() - self._begun
        self._end()
        out, err = (bytes(self._said[one][: self._limits["output_bytes"]]) for one in self._outputs)
        return {
            "stdout": out.decode("latin-1"),
            "stderr": err.decode("latin-1"),
            "exit_code": self._exit_code,
            "stopped": self._stopped,
            "seconds": seconds,
        }

    def _moved(self, one: int) -> bool:
        """Pass on some bytes. Returns: whether there may be more."""
        try:
            if one == self._input:
                self._stdin = self._stdin[os.write(one, self._stdin[:CHUNK]) :]
                return bool(self._stdin)
            data = os.read(one, CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        said = self._said[one]
        said += data[: self._limits["output_bytes"] + 1 - len(said)]
        return bool(data)

    def _look(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self.woken, CHUNK):
                pass
        self._reap(os.WNOHANG)
        if self._exit_code is not None:
            return
        if any(len(said) > self._limits["output_bytes"] for said in self._said.values()):
            self._stopped = OUTPUT
        elif time.monotonic() - self._begun > self._timeout_s:
            self._stopped = TIME
        elif self._looks and _memory(most := self._limits["memory_bytes"]) > most:
            self._stopped = MEMORY

    def _reap(self, how: int) -> None:
        """Take in those that have ended, orphans among them."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, how)
                if pid == 0:
                    return
                if pid == self._pid:
                    self._exit_code = os.waitstatus_to_exitcode(status)

    def _end(self) -> None:
        """Kill what is left, and take what it had said."""
        code = self._exit_code
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        self._reap(0)
        self._exit_code = code  # not that of our own signal
        for one in self._outputs:
            while one in self._open and len(self._said[one]) <= self._limits["output_bytes"]:
                if not select.select([one], [], [], 0)[0] or not self._moved(one):
                    self._close(one)
        if not self._stopped and any(len(said) > self._limits["output_bytes"] for said in self._said.values()):
            self._stopped = OUTPUT
        for one in list(self._open):
            self._close(one)

    def _close(self, one: int) -> None:
        self._open.discard(one)
        os.close(one)


def run_one(
    job: Mapping[str, Any], limits: Mapping[str, Any], looks: bool, visible: Iterable[str] | None
) -> dict[str, Any]:
    """Run a program in an empty /tmp.

    Args:
        visible: what is to be seen within /tmp; None: this sandbox cannot mount, and its first program is its last.
    """
    if visible is not None:
        fresh_work(limits["disk_bytes"], limits["files"], visible)
    return Run(job, limits, looks).result()


def _memory(worth_a_closer_look: int) -> int:
    """Bytes in memory of all processes but this one; beyond a number, with shared pages by their share."""
    held = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{pid}/statm") as file:
            held[pid] = int(file.read().split()[1]) * PAGE
    held.pop("1", None)
    if sum(held.values()) > worth_a_closer_look and len(held) > 1:
        held = {pid: min(num_bytes, _share(pid, num_bytes)) for pid, num_bytes in held.items()}
    return sum(held.values())


def _share(pid: str, otherwise: int) -> int:
    """Bytes of a process, pages that several have by its share; `otherwise` where it does not let itself be read."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return next((int(line.split()[1]) << 10 for line in file if line.startswith("Pss:")), 0)
    except PermissionError:
        return otherwise
    except OSError:  # it has ended meanwhile
        return 0
