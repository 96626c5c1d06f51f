"""The files that a program in the sandbox sees: a read-only tree of a few folders, and an empty /tmp of its own.

Standard library only. Called by process 1 of the new namespaces, with the right to mount in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from core.sandbox import kernel
from core.sandbox.kernel import BIND, NODEV, NOEXEC, NOSUID, RDONLY, RECURSIVE, REMOUNT, SLAVE, mount

DEVICES = ("null", "zero", "full", "random", "urandom")
LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/dev/shm": "/tmp",  # one bound for both
}
TEXTS = {
    "/etc/passwd": "root:x:0:0::/:/bin/false\nsandbox:x:1000:1000::/tmp:/bin/sh\n",
    "/etc/group": "root:x:0:\nsandbox:x:1000:\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n",
}
WORK = "/tmp"
KEPT_FOR_WORK = "/run/within"  # where visible files below /tmp are until there is one
RELATIME = 1 << 21
KEPT = {1: RDONLY, 2: NOSUID, 4: NODEV, 8: NOEXEC, 1024: 1024, 2048: 2048, 4096: RELATIME}  # statvfs's flags


def enter_tree(visible: Mapping[str, str], hidden: Sequence[str]) -> bool:
    """Make a tree with nothing but `visible`, devices and /proc the root of this namespace.

    Args:
        visible: paths, and where they are in the old tree; a link is made again.
        hidden: folders within `visible` that are empty. Where they are not there, nothing happens.
    Returns:
        whether /proc is there: containers that hide parts of theirs let nobody mount another.
    """
    mount("none", "/", flags=RECURSIVE | SLAVE)
    mount("tmpfs", WORK, "tmpfs", NOSUID | NODEV, "size=4m,mode=755")
    os.mkdir(f"{WORK}/new")
    os.mkdir(f"{WORK}/old")
    kernel.pivot_root(WORK, f"{WORK}/old")
    os.chdir("/")
    mount("tmpfs", "/new", "tmpfs", NOSUID | NODEV, "size=4m,mode=755")
    for path in ("/tmp", "/proc", "/dev", "/etc"):
        os.mkdir(f"/new{path}")
    for path, source in sorted(visible.items()):
        _show(f"/old{source}", f"/new{KEPT_FOR_WORK}{path}" if _is_within_work(path) else f"/new{path}")
    for path in hidden:
        if os.path.isdir(f"/new{path}"):
            mount("tmpfs", f"/new{path}", "tmpfs", NOSUID | NODEV | RDONLY, "size=4k,mode=755")
    _devices()
    has_proc = _proc()
    kernel.unmount("/old")
    os.chdir("/new")
    kernel.pivot_root(".", ".")
    kernel.unmount(".")
    os.chdir("/")
    mount("none", "/", flags=REMOUNT | BIND | RDONLY | NOSUID | NODEV)
    return has_proc


def fresh_work(num_bytes: int, num_files: int, visible: Iterable[str]) -> None:
    """An empty /tmp, in place of the one before, but for what of `visible` is within."""
    if os.path.ismount(WORK):
        kernel.unmount(WORK)
    mount("tmpfs", WORK, "tmpfs", NOSUID | NODEV, f"size={num_bytes},nr_inodes={num_files},mode=1777")
    for path in filter(_is_within_work, visible):
        _make_place(f"{KEPT_FOR_WORK}{path}", path)
        mount(f"{KEPT_FOR_WORK}{path}", path, flags=BIND | RECURSIVE)


def _is_within_work(path: str) -> bool:
    return path.startswith(f"{WORK}/")


def _show(old: str, new: str) -> None:
    """A file, folder or link of the old tree at a place of the new one, read-only."""
    if os.path.islink(old):
        os.makedirs(os.path.dirname(new), exist_ok=True)
        os.symlink(os.readlink(old), new)
        return
    _make_place(old, new)
    mount(old, new, flags=BIND | RECURSIVE)
    for point in _mounts_from(new):
        flags = os.statvfs(point).f_flag
        kept = sum(bit for stat_bit, bit in KEPT.items() if flags & stat_bit)
        mount("none", point, flags=kept | REMOUNT | BIND | RDONLY | NOSUID | NODEV)


def _make_place(like: str, place: str) -> None:
    """An empty folder or file, as the other is one."""
    os.makedirs(place if os.path.isdir(like) else os.path.dirname(place), exist_ok=True)
    if not os.path.isdir(like):
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))


def _mounts_from(path: str) -> list[str]:
    """A mount and those below it."""
    with open("/old/proc/self/mountinfo") as lines:
        points = [_plain(line.split()[4]) for line in lines]
    return [point for point in points if point == path or point.startswith(f"{path}/")]


def _plain(point: str) -> str:
    """A path as it is, of the kernel's way to write it."""
    for written, sign in {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}.items():
        point = point.replace(written, sign)
    return point


def _devices() -> None:
    for name in DEVICES:
        os.close(os.open(f"/new/dev/{name}", os.O_CREAT | os.O_WRONLY, 0o644))
        mount(f"/old/dev/{name}", f"/new/dev/{name}", flags=BIND)
    for path, target in LINKS.items():
        os.symlink(target, f"/new{path}")
    for path, text in TEXTS.items():
        if not os.path.exists(f"/new{path}"):
            with open(f"/new{path}", "w") as file:
                file.write(text)


def _proc() -> bool:
    try:
        mount("proc", "/new/proc", "proc", NOSUID | NODEV | NOEXEC)
    except OSError:
        return False
    return True
