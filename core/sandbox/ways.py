"""The ways into a sandbox on this machine: namespaces of our own making, or bubblewrap's; and why there is none.

Bubblewrap is asked where the kernel lets its program alone make user namespaces, as some distributions have it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.sandbox.namespaces import NOBODY, can_become_nobody

NAMESPACES, BUBBLEWRAP = "namespaces", "bubblewrap"
SYSTEM = (
    "/bin",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/lib",
    "/lib32",
    "/lib64",
    "/sbin",
    "/usr",
)
ROOT = str(Path(__file__).resolve().parents[2])
HERE = "core/sandbox"
WITHIN = "/run/ebbtide"  # where bubblewrap puts this folder
OWN_COUNT_SINCE = (5, 14)  # Linux: a namespace's processes are counted apart from its user's others


@dataclass(frozen=True)
class Interpreter:
    """A Python for the programs.

    Attributes:
        path: the program.
        visible: the folders that it needs.
        hidden: those of them that are to be empty: packages.
    """

    path: str
    visible: tuple[str, ...]
    hidden: tuple[str, ...] = ()


def interpreter(packages: bool) -> Interpreter:
    """The interpreter that this environment was made from, without packages; or the environment's own, with them."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    if packages:
        return Interpreter(sys.executable, (sys.prefix, sys.base_prefix))
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    places = (f"lib/{version}/site-packages", f"lib/{version}/dist-packages", "lib/python3/dist-packages")
    hidden = {f"{one}/{place}" for one in (sys.base_prefix, os.path.realpath(sys.base_prefix)) for place in places}
    return Interpreter(os.path.realpath(base), (sys.base_prefix,), tuple(sorted(hidden)))


def visible_paths(paths: Sequence[str]) -> dict[str, str]:
    """What of the file tree is to be seen, and where it is: the system's programs and libraries, and `paths`.

    None is within another. Where links lead to a path, it is to be seen under both names.
    """
    wanted = {path: path for path in SYSTEM}
    for path in paths:
        wanted |= dict.fromkeys((os.path.abspath(path), os.path.realpath(path)), os.path.realpath(path))
    found: dict[str, str] = {}
    for path in sorted(wanted):
        if os.path.lexists(wanted[path]) and not any(path.startswith(f"{one}/") for one in found):
            found[path] = wanted[path]
    return found


def command(way: str, visible: Mapping[str, str], hidden: Sequence[str], disk_bytes: int) -> list[str]:
    """The command line that starts process 1 of a sandbox. Raises: OSError where there is no bubblewrap."""
    base = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    if way == NAMESPACES:
        return [base, "-I", "-S", f"{ROOT}/{HERE}/start.py", ROOT, NAMESPACES]
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise OSError("bwrap is not installed")
    inner = [base, "-I", "-S", f"{WITHIN}/{HERE}/start.py", WITHIN, "within"]
    return [bwrap, *_bubblewrap_options(visible, hidden, disk_bytes), "--", *inner]


def _bubblewrap_options(visible: Mapping[str, str], hidden: Sequence[str], disk_bytes: int) -> Iterator[str]:
    yield from ("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--as-pid-1")
    yield from ("--uid", "1000", "--gid", "1000", "--hostname", "sandbox", "--die-with-parent", "--new-session")
    yield from ("--clearenv", "--proc", "/proc", "--dev", "/dev", "--size", str(disk_bytes), "--tmpfs", "/tmp")
    yield from ("--remount-ro", "/dev", "--size", str(disk_bytes), "--tmpfs", "/dev/shm")
    for path, source in visible.items():
        how = ("--symlink", os.readlink(source)) if os.path.islink(source) else ("--ro-bind", source)
        yield from (*how, path)
    for path in filter(os.path.isdir, hidden):
        yield from ("--tmpfs", path, "--remount-ro", path)
    yield from ("--ro-bind", f"{ROOT}/{HERE}", f"{WITHIN}/{HERE}", "--remount-ro", "/", "--chdir", "/tmp")


def start(way: str, visible: Mapping[str, str], hidden: Sequence[str], disk_bytes: int) -> subprocess.Popen[bytes]:
    """Start process 1 and who waits for it, with an environment that holds nothing of this process's.

    Bubblewrap is not told to change users: where this process is root, it is started as one who is not.
    """
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    nobody = way == BUBBLEWRAP and can_become_nobody()
    return subprocess.Popen(
        command(way, visible, hidden, disk_bytes),
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **kept},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        start_new_session=True,
        user=NOBODY if nobody else None,
        group=NOBODY if nobody else None,
        extra_groups=[] if nobody else None,
    )


def threads_outside(release: str | None = None) -> int:
    """Threads that count against the limit of processes besides the sandbox's own: those of its user, on old kernels.

    Args:
        release: of the kernel, as uname has it; None: this one's.
    """
    parts = (release or os.uname().release).split(".")
    if (int(parts[0]), int(parts[1].partition("-")[0])) >= OWN_COUNT_SINCE:
        return 0
    user = NOBODY if can_become_nobody() else os.geteuid()
    return sum(_threads(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _owner(entry) == user)


def _owner(process: Path) -> int:
    try:
        return process.stat().st_uid
    except OSError:
        return -1


def _threads(process: Path) -> int:
    try:
        return len(os.listdir(process / "task"))
    except OSError:
        return 0
