"""Run a command that the kernel kills when its parent dies: `python -S die_with_parent.py PARENT_PID COMMAND...`.

The command ignores SIGUSR2, and so do its children.

The death signal survives exec, so any program can be started this way. Also a function for our own processes.
Standard library only, and no import of this project: it starts before every child.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(parent_pid: int, signal_number: int = signal.SIGKILL) -> None:
    """Ask the kernel for a signal when the parent dies, and exit at once if it is dead already.

    Args:
        parent_pid: who is expected to be the parent; a different one means that it died in between.
    """
    _prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent_pid:
        sys.exit(f"parent {parent_pid} is gone (now {os.getppid()}): not starting")


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that none escapes the clean-up."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm's warning goes to every process of a job
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
