"""A sandbox under way, as its owner sees it: started, given programs, ended with all in it."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from core.sandbox import ways

START_TIMEOUT_S = 60.0  # of a machine that has much else to do; otherwise it is some hundredths
END_TIMEOUT_S = 10.0
CHUNK = 1 << 16
MOST_COMPLAINT_BYTES = 10_000
BYTES_OF_ONE = 6  # of a byte of output as JSON has it


class SandboxUnavailable(RuntimeError):
    """A machine on which there is no sandbox, or a sandbox that was lost. The message says why, and what to do."""


class Session:
    """Process 1 of a sandbox and its launcher. A context manager; for one thread at a time."""

    def __init__(self, way: str, limits: Mapping[str, Any], visible: Mapping[str, str], hidden: Sequence[str]) -> None:
        """Start it.

        Args:
            limits: what `core.sandbox.init` and `core.sandbox.program` bound programs by.
            visible, hidden: what of the file tree is there, where it is outside, and which folders of it are empty.
        """
        self._most = 2 * BYTES_OF_ONE * limits["output_bytes"] + MOST_COMPLAINT_BYTES
        self._process = ways.start(way, visible, hidden, limits["disk_bytes"])
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._told, self._said = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._told, False)
        self._settings = {"limits": limits, "visible": visible, "hidden": hidden}

    def __enter__(self) -> Self:
        """Wait until it can run programs.

        Raises:
            SandboxUnavailable: it cannot, with its reason.
        """
        try:
            self._asked(self._settings, START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, code: str, stdin: bytes, timeout_s: float) -> dict[str, Any]:
        """What became of a program, as `core.sandbox.init` tells it.

        Raises:
            SandboxUnavailable: the sandbox was lost.
        """
        job = {"code": code, "stdin": stdin.decode("latin-1"), "timeout_s": timeout_s}
        found: dict[str, Any] = json.loads(self._asked(job, timeout_s + START_TIMEOUT_S))
        return found

    def close(self) -> None:
        """Kill what is left: without its launcher, or an owner, process 1 is killed, and all else with it."""
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(END_TIMEOUT_S)

    def _asked(self, question: Mapping[str, Any], timeout_s: float) -> bytes:
        """Say a line, and hear one."""
        left = memoryview(json.dumps(question).encode("ascii") + b"\n")
        heard, deadline = bytearray(), time.monotonic() + timeout_s
        while not heard.endswith(b"\n"):
            rest = deadline - time.monotonic()
            if rest <= 0:
                raise SandboxUnavailable(f"the sandbox gave no answer within {timeout_s:.0f} s")
            poll = select.poll()  # not select: a caller may have opened many files
            poll.register(self._said, select.POLLIN)
            if left:
                poll.register(self._told, select.POLLOUT)
            for one, _ in poll.poll(rest * 1000):
                if one == self._told:
                    left = self._tell(left)
                elif data := os.read(self._said, CHUNK):
                    heard += data
                else:
                    raise SandboxUnavailable(self._complaint())
                if len(heard) > self._most:
                    raise SandboxUnavailable("the sandbox says more than it may")
        return bytes(heard)

    def _tell(self, left: memoryview) -> memoryview:
        try:
            return left[os.write(self._told, left[:CHUNK]) :]
        except BlockingIOError:
            return left
        except BrokenPipeError:  # it is about to say why
            return left[len(left) :]

    def _complaint(self) -> str:
        assert self._process.stderr is not None
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        said = os.read(self._process.stderr.fileno(), MOST_COMPLAINT_BYTES).decode("utf-8", "replace").strip()
        return said or f"it ended with exit code {self._process.wait(END_TIMEOUT_S)}"
