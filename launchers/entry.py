"""The begin of the command `ebbtide`: a Ctrl-C while it still imports ends it in a line. Standard library only."""

from __future__ import annotations

import signal

from launchers.node import early


def main() -> None:
    """Entry point of the `ebbtide` command."""
    before = {number: signal.getsignal(number) for number in (*early.ENDING, early.WARNING)}
    early.leave_at_once()
    from launchers.cli import main as command

    for number, handler in before.items():
        signal.signal(number, handler)
    command()
