"""Leaving the machine: process 1 of new namespaces, as a user who may do nothing outside. Standard library only.

Where this process is root, the file tree is built as root, and what runs then is an unprivileged user, who could not
reach the files of an interpreter under /root. Where it is an ordinary user, the kernel's user namespaces let it do so;
likewise root of a container that has no other user.
Either way the user is 1000 within, and processes, network, IPC and mounts are its own.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from core.sandbox import kernel
from core.sandbox.kernel import NEWIPC, NEWNET, NEWNS, NEWPID, NEWUSER, NEWUTS
from core.sandbox.tree import enter_tree

INSIDE = 1000  # user and group within
NOBODY = 65534  # whom root becomes outside
FAILED = 3  # exit code of a process that says on its standard error why
MOST_USER_NAMESPACES = "/proc/sys/user/max_user_namespaces"


def can_become_nobody() -> bool:
    """Whether this process is root, and of more than itself: root of a container may be its user under another name."""
    return os.geteuid() == 0 and all(map(_knows_nobody, ("/proc/self/uid_map", "/proc/self/gid_map")))


def _knows_nobody(path: str) -> bool:
    with open(path) as file:
        ranges = [tuple(map(int, line.split())) for line in file]
    return any(first <= NOBODY < first + count for first, _, count in ranges)


def run_as_init(visible: Mapping[str, str], hidden: Sequence[str], work: Callable[[bool], None]) -> int:
    """Call `work` in process 1 of new namespaces, and wait for its end.

    Args:
        visible, hidden: what of the file tree is there, where it is outside, and which folders of it are empty.
        work: told whether /proc is there. When it returns, all processes of the namespaces end.
    Returns:
        exit code of process 1; negative: the signal that ended it.
    """
    user, group, is_root = os.geteuid(), os.getegid(), can_become_nobody()
    if is_root:
        kernel.unshare(NEWPID)
    else:
        kernel.unshare(NEWUSER | NEWPID)
        _write("/proc/self/setgroups", "deny")
        _map(os.getpid(), user, group)
    asks, answers = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with exit_after():
            os.close(asks[0])
            os.close(answers[1])
            kernel.unshare(NEWNS | NEWNET | NEWIPC | NEWUTS)
            kernel.set_host_name("sandbox")
            has_proc = enter_tree(visible, hidden)
            if is_root:
                _become_nobody(asks[1], answers[0])
            with suppress(OSError):  # where there is no /proc the filter of system calls still refuses to make any
                _write(MOST_USER_NAMESPACES, "0")
            kernel.prctl(kernel.PDEATHSIG, signal.SIGKILL)
            kernel.prctl(kernel.SET_DUMPABLE, 0)
            for one in (asks[1], answers[0]):
                os.close(one)
            work(has_proc)
    os.close(asks[1])
    os.close(answers[0])
    if is_root and os.read(asks[0], 1):
        _map(child, NOBODY, NOBODY)
        os.write(answers[1], b".")
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@contextmanager
def exit_after() -> Iterator[None]:
    """End this process, a fork of another, when the block ends, however it ends."""
    try:
        yield
    except BaseException as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
        os._exit(FAILED)
    os._exit(0)


def _become_nobody(ask: int, answer: int) -> None:
    """Be an unprivileged user in a namespace of users; the parent, who is still root, says who is who in it."""
    os.setgroups([])
    kernel.unshare(NEWUSER | NEWNS)
    os.write(ask, b".")
    if not os.read(answer, 1):
        raise OSError("the launcher is gone")
    os.setresgid(INSIDE, INSIDE, INSIDE)
    os.setresuid(INSIDE, INSIDE, INSIDE)


def _map(pid: int, user: int, group: int) -> None:
    _write(f"/proc/{pid}/uid_map", f"{INSIDE} {user} 1\n")
    _write(f"/proc/{pid}/gid_map", f"{INSIDE} {group} 1\n")


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror}") from error
