"""Whether a run directory is one that all nodes see, as far as a login node can tell.

Certainty comes on the nodes, which look for a file that the first one wrote. Pure but for `mounts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.mistake import Mistake

PRIVATE_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/var/run")
PRIVATE_KINDS = {"tmpfs", "ramfs", "devtmpfs", "proc", "sysfs"}


def unshared(path: Path, shared: Sequence[Path], kinds: Mapping[Path, str]) -> Mistake | None:
    """Why other nodes would not see `path`; None if they may.

    Args:
        path: absolute.
        shared: the site's `shared_filesystems`; with any named, the path must lie in one of them.
        kinds: of each mount point of this machine, the kind of file system.
    """
    if shared:
        if any(path.is_relative_to(folder) for folder in shared):
            return None
        folders = ", ".join(map(str, shared))
        wanted = f"a folder in {folders} (shared_filesystems in the site file)"
        remedy = "choose another --run-dir, or set runs_dir in the run file"
        return Mistake("run directory", None, str(path), wanted, remedy)
    private = next((folder for folder in PRIVATE_FOLDERS if path.is_relative_to(folder)), None)
    kind = kind_of(path, kinds)
    if private is None and kind not in PRIVATE_KINDS:
        return None
    what = f"in {private}, which every node has for itself" if private else f"on a {kind} of this machine"
    remedy = "choose another --run-dir, or, if they do see this one, name it in shared_filesystems of the site file"
    return Mistake("run directory", None, f"{path}, {what}", "a folder that all nodes see", remedy)


def kind_of(path: Path, kinds: Mapping[Path, str]) -> str:
    """The kind of file system that `path` is on: that of the nearest mount point above it."""
    return next((kinds[folder] for folder in (path, *path.parents) if folder in kinds), "unknown")


def mounts(mountinfo: Path = Path("/proc/self/mountinfo")) -> dict[Path, str]:
    """Mount points of this machine and their kinds; empty where the kernel does not say."""
    try:
        lines = mountinfo.read_text().splitlines()
    except OSError:
        return {}
    return dict(found for line in lines if (found := _mount(line)) is not None)


def _mount(line: str) -> tuple[Path, str] | None:
    """`36 35 98:0 / /mnt\\040a rw,noatime shared:1 - ext3 /dev/root rw` -> /mnt a, ext3."""
    before, separator, after = line.partition(" - ")
    fields = before.split()
    if not separator or len(fields) < 5 or not after.split():
        return None
    point = fields[4].encode().decode("unicode_escape")  # octal escapes of blanks
    return Path(point), after.split()[0]
