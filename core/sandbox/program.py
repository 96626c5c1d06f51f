"""A process becomes the stranger's program: limits set, rights dropped, nothing inherited. Standard library only."""

from __future__ import annotations

import fcntl
import math
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from core.sandbox import kernel
from core.sandbox.filter import apply_filter
from core.sandbox.tree import WORK

OPEN_FILES = 256
STACK_BYTES = 8 << 20
ALWAYS = {
    "HOME": WORK,
    "TMPDIR": WORK,
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "USER": "sandbox",
    "PYTHONUTF8": "1",
    "PYTHONHASHSEED": "0",  # the same program does the same
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONNOUSERSITE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}


def pipes() -> tuple[list[int], list[int]]:
    """Our ends and the program's of its standard input, output and error; ours do not block."""
    (stdin, our_in), (our_out, stdout), (our_err, stderr) = (os.pipe2(os.O_CLOEXEC) for _ in range(3))
    for one in (our_in, our_out, our_err):
        os.set_blocking(one, False)
    return [our_in, our_out, our_err], [stdin, stdout, stderr]


def become(streams: Sequence[int], limits: Mapping[str, Any]) -> None:
    """Execute the program. Returns never."""
    os.setsid()
    for wanted, one in enumerate([fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in streams]):
        os.dup2(one, wanted)
    os.closerange(3, 4096)
    os.chdir(WORK)
    os.umask(0o022)
    for number in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    _limit(limits)
    for capability in range(kernel.LAST_CAPABILITY + 1):
        with suppress(OSError):
            kernel.prctl(kernel.CAPBSET_DROP, capability)
    apply_filter()
    python = limits["python"]
    os.execve(python, [python, f"{WORK}/program.py"], ALWAYS | limits["environment"])


def _limit(limits: Mapping[str, Any]) -> None:
    seconds = math.ceil(limits["timeout_s"]) + 1
    for name, most in {
        "CPU": seconds,
        "AS": limits["memory_bytes"],
        "FSIZE": limits["disk_bytes"],
        "NPROC": limits["threads_outside"] + limits["processes"] + 2,  # launcher and process 1 count
        "NOFILE": OPEN_FILES,
        "STACK": STACK_BYTES,
        "CORE": 0,
        "MSGQUEUE": 0,
        "MEMLOCK": 0,
    }.items():
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is not None:
            _, hard = resource.getrlimit(number)
            least = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(number, (least, least))
