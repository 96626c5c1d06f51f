"""Host memory that a process may use, by the files of the kernel's two kinds of control groups."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from hpc.node.host_memory import MACHINE, HostMemory, host_memory

PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
UNLIMITED = "9223372036854771712"  # of the first kind


def machine(folder: Path, groups: str, files: Mapping[str, str]) -> Path:
    """A root with a process's groups, and files below /sys/fs/cgroup."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        file = folder / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return folder


@pytest.mark.parametrize(
    ("groups", "files", "wanted"),
    [
        ("0::/\n", {"memory.max": "1000"}, HostMemory(1000, "the control group /")),
        ("0::/\n", {"memory.max": "max"}, HostMemory(PHYSICAL)),
        (
            "0::/slurm/job_7/step_0\n",
            {"slurm/job_7/step_0/memory.max": "max", "slurm/job_7/memory.max": "2000", "slurm/memory.max": "3000"},
            HostMemory(2000, "the control group /slurm/job_7"),
        ),
        ("0::/docker/of-the-host\n", {"memory.max": "1000"}, HostMemory(1000, "the control group /")),
        (
            "4:cpu,memory:/slurm/job_7\n1:name=systemd:/\n0::/\n",
            {"memory/slurm/job_7/memory.limit_in_bytes": "4000", "memory/memory.limit_in_bytes": UNLIMITED},
            HostMemory(4000, "the control group /slurm/job_7"),
        ),
        ("4:memory:/a\n0::/b\n", {"unified/b/memory.max": "5000"}, HostMemory(5000, "the control group /b")),
        ("3:cpu:/a\n", {"cpu/a/memory.max": "1"}, HostMemory(PHYSICAL)),
        ("0::/\n", {"memory.max": str(2 * PHYSICAL)}, HostMemory(PHYSICAL)),
    ],
    ids=[
        "container",
        "no-limit",
        "job",
        "path-of-the-host",
        "first-kind",
        "both-kinds",
        "of-cores",
        "more-than-there-is",
    ],
)
def test_the_least_limit_counts(tmp_path: Path, groups: str, files: Mapping[str, str], wanted: HostMemory) -> None:
    assert host_memory(machine(tmp_path, groups, files)) == wanted


def test_no_control_groups(tmp_path: Path) -> None:
    assert host_memory(tmp_path) == HostMemory(PHYSICAL, MACHINE)


def test_this_machine() -> None:
    assert 0 < host_memory().total_bytes <= PHYSICAL
