"""A filter of system calls for strangers' programs: what neither Python nor its library needs is refused.

It keeps closed what namespaces leave open: kinds of sockets that know no namespace (vsock reaches a virtual machine's
host), memory that no limit counts (memfd, System V), keyrings, and parts of the kernel in which faults are often found.
A refused call fails with EPERM, a kind of socket with EAFNOSUPPORT; clone3 with ENOSYS, so that libc takes clone.
Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator

from core.sandbox import kernel

# names with their numbers on x86_64 and aarch64; None: that machine does not have the call
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "semget": (64, 190),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "shmget": (29, 194),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # as the kernel's audit names them
CLONE, CLONE3, SOCKET, PRLIMIT = (56, 220), (435, 435), (41, 198), (302, 261)
NAMESPACES = 0x7E020000  # flags of clone that make one
FAMILIES = (1, 2, 10)  # of sockets that are let through: Unix, and IP, which leads nowhere in a network of one's own
X32 = 0x40000000  # calls of a third table on x86_64

LOAD, EQUAL, AT_LEAST, ANY_BIT, ANSWER = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER, MACHINE, FIRST = 0, 4, 16  # where the call, the machine and the first argument lie; FIRST on little-endian
Line = tuple[int, int, int, int]  # code, lines to jump if true, and if false, value


def filter_lines(machine: str) -> list[Line]:
    """The filter as a program of the kernel's packet filter. Raises: KeyError for a machine without a table."""
    column = list(MACHINES).index(machine)
    return [
        (LOAD, 0, 0, MACHINE),
        (EQUAL, 1, 0, MACHINES[machine]),
        (ANSWER, 0, 0, KILL),  # a call of another table
        (LOAD, 0, 0, NUMBER),
        *([(AT_LEAST, 0, 1, X32), _refused(errno.EPERM)] if machine == "x86_64" else []),
        *_lines(column),
        (ANSWER, 0, 0, ALLOW),
    ]


def _lines(column: int) -> Iterator[Line]:
    for numbers in REFUSED.values():
        number = numbers[column]
        if number is not None:
            yield from [(EQUAL, 0, 1, number), _refused(errno.EPERM)]
    yield from [(EQUAL, 0, 1, CLONE3[column]), _refused(errno.ENOSYS)]
    yield from [(EQUAL, 0, 4, CLONE[column]), (LOAD, 0, 0, FIRST), (ANY_BIT, 0, 1, NAMESPACES), _refused(errno.EPERM)]
    yield (ANSWER, 0, 0, ALLOW)
    # limits of other processes, the init's for one
    yield from [(EQUAL, 0, 4, PRLIMIT[column]), (LOAD, 0, 0, FIRST), (EQUAL, 1, 0, 0), _refused(errno.EPERM)]
    yield (ANSWER, 0, 0, ALLOW)
    yield from [(EQUAL, 0, 2 + len(FAMILIES), SOCKET[column]), (LOAD, 0, 0, FIRST)]
    yield from [(EQUAL, len(FAMILIES) - place, 0, family) for place, family in enumerate(FAMILIES)]
    yield _refused(errno.EAFNOSUPPORT)


def _refused(number: int) -> Line:
    return (ANSWER, 0, 0, REFUSE | number)


def apply_filter() -> None:
    """Put this process, and all that it starts, under the filter. No way leads back."""
    machine = os.uname().machine
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, f"no filter of system calls for {machine}, only for {', '.join(MACHINES)}")
    lines = filter_lines(machine)
    text = b"".join(struct.pack("HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(text, len(text))
    program = struct.pack("HxxxxxxP", len(lines), ctypes.addressof(buffer))
    kernel.prctl(kernel.SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.SET_SECCOMP, 2, program)
