"""Host memory that a process may use: the machine's, or what its control groups leave of it.

A container, and a Slurm job where the cluster constrains memory, is killed without a word beyond its own limit, however
much the machine has. Linux: Documentation/admin-guide/cgroup-v2.rst (`memory.max`) and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MACHINE = "this machine"
CGROUPS = ("sys/fs/cgroup", "sys/fs/cgroup/unified"), "memory.max"  # one hierarchy for all, alone or beside those below
MEMORY_CGROUPS = ("sys/fs/cgroup/memory",), "memory.limit_in_bytes"


@dataclass(frozen=True)
class HostMemory:
    """Bytes, and who has or sets them."""

    total_bytes: int
    whose: str = MACHINE


def host_memory(root: Path = Path("/")) -> HostMemory:
    """The least of what the machine has and each control group of this process allows.

    Args:
        root: below which /proc and /sys lie.
    """
    machine = HostMemory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min([machine, *_of_cgroups(root)], key=lambda memory: memory.total_bytes)


def _of_cgroups(root: Path) -> Iterator[HostMemory]:
    """Limits of this process's groups and of those around them."""
    lines: list[str] = []
    with suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folders, file = MEMORY_CGROUPS if controllers else CGROUPS
        for folder in folders:
            yield from _upwards(root / folder, PurePosixPath(group), file)


def _upwards(folder: Path, group: PurePosixPath, file: str) -> Iterator[HostMemory]:
    """Limits from a group up to the first one. In a container its own path may be the host's, and lead nowhere here."""
    for each in (group, *group.parents):
        with suppress(OSError):
            limit = (folder / each.relative_to("/") / file).read_text(encoding="utf-8").strip()
            if limit.isdecimal():  # else "max"
                yield HostMemory(int(limit), f"the control group {each}")
