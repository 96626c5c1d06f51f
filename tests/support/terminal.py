"""A terminal of a given width: a command runs in it by way of a pseudo-terminal, and its text is what a person sees.

Knows what rich and plain commands write: text, line feeds, colours (left out), moves up and to the left, erasing. No
scroll region, no alternate screen.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.cells import cell_len

ROWS = 50
READ_BYTES = 65536
POLL_S = 0.2
SEQUENCE = re.compile(r"\x1b(?:\[([0-9;?]*)([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()].|[=>78])")
UNFINISHED = re.compile(r"\x1b(?:\[[0-9;?]*|\][^\x07]*|[()])?\Z")


class Screen:
    """What stands on a terminal, with all that has scrolled out of it."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._lines: list[list[str]] = [[]]
        self._row = self._column = 0
        self._pending = ""

    def feed(self, text: str) -> None:
        """Take what a program wrote."""
        text = self._pending + text
        cut = UNFINISHED.search(text)
        self._pending = text[cut.start() :] if cut else ""
        text = text[: cut.start()] if cut else text
        start = 0
        for found in SEQUENCE.finditer(text):
            self._write(text[start : found.start()])
            if found[2]:
                self._control(found[1], found[2])
            start = found.end()
        self._write(text[start:])

    @property
    def lines(self) -> list[str]:
        """From the first line on, without blanks at their ends."""
        return ["".join(line).rstrip() for line in self._lines]

    def _write(self, text: str) -> None:
        for letter in text:
            if letter == "\n":
                self._row += 1
                self._column = 0
            elif letter == "\r":
                self._column = 0
            elif letter == "\b":
                self._column = max(0, self._column - 1)
            elif letter >= " ":
                self._put(letter)
            self._lines += [[] for _ in range(self._row + 1 - len(self._lines))]

    def _put(self, letter: str) -> None:
        """A letter at the cursor; a line that is full goes on in the next one."""
        if self._column + cell_len(letter) > self.columns:
            self._row += 1
            self._column = 0
            self._lines += [[] for _ in range(self._row + 1 - len(self._lines))]
        line = self._lines[self._row]
        line += [" "] * (self._column + 1 - len(line))
        line[self._column] = letter
        self._column += 1

    def _control(self, numbers: str, what: str) -> None:
        number = int(numbers) if numbers.isdigit() else 0
        line = self._lines[self._row]
        if what == "A":
            self._row = max(0, self._row - max(number, 1))
        elif what == "D":
            self._column = max(0, self._column - max(number, 1))
        elif what == "G":
            self._column = max(number, 1) - 1
        elif what == "K":
            del line[0 if number == 2 else self._column :]
        elif what == "J":
            del line[self._column :], self._lines[self._row + 1 :]


def in_terminal(
    command: Sequence[str],
    columns: int,
    *,
    folder: Path,
    env: Mapping[str, str],
    timeout_s: float,
    interrupt: Callable[[Screen], bool] = lambda _screen: False,
) -> tuple[Screen, int]:
    """What a command leaves on a terminal, and its exit code.

    Args:
        folder: where it runs.
        interrupt: whether to press Ctrl-C, by what stands on the screen; pressed once.
    Raises:
        TimeoutError: the command has not ended in time; it is killed.
    """
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    own = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}

    def take_terminal() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs this may be in the background, where it is ignored
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    child = subprocess.Popen(
        command,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=folder,
        env={**own, "TERM": "xterm-256color"},
        preexec_fn=take_terminal,
    )
    os.close(follower)
    screen, decoder = Screen(columns), codecs.getincrementaldecoder("utf-8")("replace")
    ends, pressed = time.monotonic() + timeout_s, False
    try:
        while (data := _read(leader)) is not None:
            screen.feed(decoder.decode(data))
            if not pressed and interrupt(screen):
                os.write(leader, b"\x03")
                pressed = True
            if time.monotonic() > ends:
                shown = "\n".join(screen.lines)
                raise TimeoutError(f"{' '.join(command)}: not over after {timeout_s:.0f} s:\n{shown}")
        return screen, child.wait(timeout_s)
    finally:
        child.kill()
        child.wait()
        os.close(leader)


def _read(leader: int) -> bytes | None:
    """What has been written meanwhile; None: nobody can write any more."""
    if not select.select([leader], [], [], POLL_S)[0]:
        return b""
    try:
        return os.read(leader, READ_BYTES) or None
    except OSError:  # as Linux tells that the other end is closed
        return None
