"""A recorded session for the pages: `make session`, which takes some 10 minutes on two cores.

The demo is run in terminals of 80 and of 120 columns (`tests/support/terminal.py`), stopped by Ctrl-C, resumed, and
looked at; docs/session.md gets what a person sees. Names of this machine and its folders are replaced.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.support.terminal import Screen, in_terminal

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "session.md"
BIN = Path(sys.executable).parent
WIDTHS = (80, 120)
HOME, HOST = "~/try", "workstation"
STOP_AFTER = "step   2"  # is complete
DEADLINE_S = 1500.0
COMMANDS = (
    "ebbtide run examples/smollm2-arithmetic.yaml --run-dir runs/demo",
    "ebbtide status runs/demo",
    "ebbtide resume runs/demo",
    "ebbtide status runs/demo",
    "ebbtide inspect runs/demo --step 11 --best 1 --worst 1",
)
HEAD = """\
# A session

The demo at a terminal: run, stopped by Ctrl-C while its fourth step is under way, resumed to its end, and looked at. On
two CPU cores; recorded by `make session`, which runs these commands in terminals of 80 and of 120 columns. What a
terminal shows in colour is plain here, and of a line that changes its last state is shown.
"""


def main() -> None:
    """Record it at every width, or at those that are named, and write the page if it was every one."""
    widths = tuple(map(int, sys.argv[1:])) or WIDTHS
    parts = [HEAD]
    for columns in widths:
        with tempfile.TemporaryDirectory(prefix="ebbtide-session.", dir="/var/tmp") as folder:
            parts.append(f"## {columns} columns\n\n```text\n{session(Path(folder), columns)}\n```\n")
    text = "\n".join(parts)
    if widths == WIDTHS:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text)


def session(folder: Path, columns: int) -> str:
    """All commands after each other, with what they show."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    parts = []
    for number, command in enumerate(COMMANDS):
        shown = record(command, folder, columns, stop=stops if number == 0 else lambda _screen: False)
        parts.append(f"$ {command}\n{shown}")
        print(parts[-1], flush=True)
    return "\n\n".join(parts)


def record(command: str, folder: Path, columns: int, stop: Callable[[Screen], bool] = lambda _screen: False) -> str:
    """What a command shows, without names of this machine."""
    first, *words = command.split()
    env = {**os.environ, "PYTHONPATH": ""}
    program = [str(BIN / first), *words]
    screen, _ = in_terminal(program, columns, folder=folder, env=env, timeout_s=DEADLINE_S, interrupt=stop)
    return "\n".join(plain(line, folder) for line in screen.lines).rstrip()


def stops(screen: Screen) -> bool:
    """Whether the run has come to where it is stopped."""
    return any(STOP_AFTER in line for line in screen.lines)


def plain(line: str, folder: Path) -> str:
    """A line without the folder and the host of the recording, and without the commit."""
    line = line.replace(str(folder), HOME).replace(str(ROOT), "~/ebbtide")
    line = re.sub(r" at [0-9a-f]{8}\b", "", line)
    return re.sub(rf"\b{re.escape(socket.gethostname())}\b", HOST, line)


if __name__ == "__main__":
    main()
