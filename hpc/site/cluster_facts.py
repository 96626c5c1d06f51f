"""What a cluster has and allows, asked from Slurm with one call of each command. Requests are held against it by
`hpc.sbatch.request_check`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from common.slurm_time import time_limit_minutes
from hpc.slurm.commands import SlurmError, run_command

SINFO = ("sinfo", "--noheader", "--exact", "--format=%P|%a|%l|%D|%c|%m|%G|%f")
CONFIG = ("scontrol", "show", "config")
SACCT = ("sacct", "--noheader", "--allocations", "--format=JobID", "--starttime=now-1minutes")
_GPU = re.compile(r"gpu:(?:([^:,()]+):)?(\d+)")


@dataclass(frozen=True)
class NodeGroup:
    """Equal nodes of a partition. `features` are what --constraint may name."""

    count: int
    cpus: int
    memory_mib: int
    gpus: int = 0
    gpu_types: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Partition:
    """A partition as `sinfo` shows it. `max_minutes` None: no limit."""

    name: str
    nodes: tuple[NodeGroup, ...]
    default: bool = False
    up: bool = True
    max_minutes: int | None = None

    @property
    def max_gpus(self) -> int:
        """GPUs of its largest node."""
        return max((group.gpus for group in self.nodes), default=0)


@dataclass(frozen=True)
class ClusterFacts:
    """A cluster. `requeue_default`: whether jobs are requeued that do not ask for it; `accounting`: sacct answers."""

    name: str
    version: str
    partitions: tuple[Partition, ...]
    heterogeneous: bool = True
    requeue_default: bool = True
    accounting: bool = True
    max_array_size: int = 1001

    @property
    def default_partition(self) -> Partition | None:
        """The partition of jobs that name none."""
        return next((partition for partition in self.partitions if partition.default), None)

    @property
    def features(self) -> frozenset[str]:
        """All that `--constraint` may name."""
        return frozenset().union(*(group.features for partition in self.partitions for group in partition.nodes))

    def partition(self, name: str) -> Partition | None:
        """The partition of this name."""
        return next((partition for partition in self.partitions if partition.name == name), None)


def ask_cluster(timeout_s: float = 30.0) -> ClusterFacts:
    """The facts of the cluster that this machine belongs to: three commands, one after the other.

    Raises:
        SlurmError: sinfo or scontrol is not there, fails, or does not answer within `timeout_s`.
    """
    partitions = read_partitions(run_command(SINFO, timeout_s))
    config = read_config(run_command(CONFIG, timeout_s))
    try:
        run_command(SACCT, timeout_s)
        accounting = True
    except SlurmError:
        accounting = False
    return ClusterFacts(
        name=config.get("ClusterName", ""),
        version=config.get("SLURM_VERSION", ""),
        partitions=partitions,
        heterogeneous=config.get("SchedulerType", "sched/backfill") == "sched/backfill",  # no other starts such jobs
        requeue_default=config.get("JobRequeue", "1") == "1",
        accounting=accounting,
        max_array_size=int(config.get("MaxArraySize", "1001")),
    )


def read_partitions(text: str) -> tuple[Partition, ...]:
    """Partitions from lines of `SINFO`, in its order; one line for each group of equal nodes."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) != 8:
            continue
        name, avail, limit, count, cpus, memory, gres, features = fields
        key = name.rstrip("*")
        before = found.get(key)
        group = NodeGroup(_number(count), _number(cpus), _number(memory), *read_gpus(gres), _features(features))
        found[key] = Partition(
            key, (*(before.nodes if before else ()), group), name.endswith("*"), avail == "up", _minutes(limit)
        )
    return tuple(found.values())


def read_config(text: str) -> dict[str, str]:
    """The `Key = value` lines of `scontrol show config`."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def read_gpus(gres: str) -> tuple[int, frozenset[str]]:
    """GPUs and their types in a GRES text: `gpu:h100:8(S:0-1)`, `gpu:4`, `(null)`."""
    found = _GPU.findall(gres)
    return sum(int(count) for _, count in found), frozenset(kind for kind, _ in found if kind)


def _features(text: str) -> frozenset[str]:
    return frozenset(feature for feature in text.split(",") if feature and feature != "(null)")


def _number(text: str) -> int:
    digits = re.match(r"\d+", text)
    return int(digits[0]) if digits else 0


def _minutes(limit: str) -> int | None:
    try:
        return time_limit_minutes(limit)
    except ValueError:
        return None  # infinite, n/a


def largest(partitions: Sequence[Partition]) -> Partition | None:
    """The partition with the most GPUs."""
    return max(partitions, key=lambda it: sum(group.count * group.gpus for group in it.nodes), default=None)
