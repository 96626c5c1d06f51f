"""Calls of the kernel that Python 3.11 has no function for. Linux alone; standard library only."""

from __future__ import annotations

import ctypes
import os

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, RECURSIVE, SLAVE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 19
DETACH = 2
PDEATHSIG, SET_DUMPABLE, CAPBSET_DROP, SET_NO_NEW_PRIVS, SET_SECCOMP = 1, 4, 24, 38, 22
LAST_CAPABILITY = 63  # that a kernel may ever have; those that it lacks are refused, and that is all

_libc = ctypes.CDLL(None, use_errno=True)


class KernelRefused(OSError):
    """A call that the kernel refused: `strerror` names the call."""


def unshare(flags: int) -> None:
    """Leave namespaces of this process for new ones."""
    _checked("unshare", _libc.unshare(flags))


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    done = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _checked(f"mount {target}", done)


def unmount(target: str) -> None:
    """Take a mount out of the tree, also while something of it is open."""
    _checked(f"unmount {target}", _libc.umount2(target.encode(), DETACH))


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root of this mount namespace, and put the root before it at `old`."""
    _checked(f"pivot_root {new}", _libc.pivot_root(new.encode(), old.encode()))


def prctl(option: int, first: int, second: object = 0) -> None:
    """prctl(2), with two arguments of its own."""
    _checked(f"prctl {option}", _libc.prctl(option, ctypes.c_ulong(first), second, 0, 0))


def set_host_name(name: str) -> None:
    """sethostname(2)."""
    _checked("sethostname", _libc.sethostname(name.encode(), len(name)))


def _checked(what: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise KernelRefused(number, f"{what}: {os.strerror(number)}")
