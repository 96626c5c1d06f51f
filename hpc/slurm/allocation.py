"""The Slurm allocation that this process runs in, as its environment tells it: no command is asked.

Inside a step (a task started by srun) a process also knows which of all tasks it is. With one step over all components
of a heterogeneous job, Slurm numbers the tasks through: SLURM_PROCID counts over component 0, then 1, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.hostlist import HostlistError, expand

FIRST_SPECIAL_STEP = 0xFFFFFFF0  # interactive, external and batch steps are numbered from here


class AllocationError(RuntimeError):
    """The SLURM_* variables contradict each other or some are missing."""


@dataclass(frozen=True)
class Allocation:
    """One job's nodes, and this task's place in it."""

    job_id: str  # of component 0, the leader: the one that scancel, scontrol requeue and squeue know
    components: tuple[tuple[str, ...], ...]  # node names of each component
    tasks: tuple[int, ...]  # tasks of each component
    restart_count: int = 0  # how often Slurm has requeued the job
    in_step: bool = False  # False: a batch script or the shell of salloc
    procid: int | None = None  # this task among all tasks; None outside a step
    job_end: float | None = None  # seconds since the epoch at which the time limit ends the job; None: not known

    @property
    def het_size(self) -> int:
        """Number of components; 1 for an ordinary job."""
        return len(self.components)

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes, in the order of the tasks on them."""
        return tuple(node for component in self.components for node in component)

    @property
    def num_tasks(self) -> int:
        return sum(self.tasks)

    @classmethod
    def from_environ(cls, env: Mapping[str, str]) -> Allocation | None:
        """The allocation that `env` (os.environ) describes, None outside Slurm.

        Raises:
            AllocationError: a variable is missing or makes no sense, or a step does not span all components.
        """
        if not env.get("SLURM_JOB_ID"):
            return None
        suffixes = [f"_HET_GROUP_{k}" for k in range(_number(env, "SLURM_HET_SIZE", 1))]
        if len(suffixes) == 1:
            suffixes = [""]
        in_step = 0 <= _number(env, "SLURM_STEP_ID", -1) < FIRST_SPECIAL_STEP
        found = cls(
            job_id=env.get(f"SLURM_JOB_ID{suffixes[0]}", env["SLURM_JOB_ID"]),
            components=tuple(_nodes(env, suffix) for suffix in suffixes),
            tasks=tuple(_tasks(env, suffix, in_step) for suffix in suffixes),
            restart_count=_number(env, "SLURM_RESTART_COUNT", 0),
            in_step=in_step,
            procid=_number(env, "SLURM_PROCID", 0) if in_step else None,
            job_end=_job_end(env),
        )
        if in_step and (in_this_step := _number(env, "SLURM_NTASKS", found.num_tasks)) != found.num_tasks:
            raise AllocationError(
                f"job {found.job_id}: found a step of {in_this_step} tasks, wanted all {found.num_tasks} of the job's "
                f"{found.het_size} components: srun --het-group=0-{found.het_size - 1} …"
            )
        return found


def _text(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if not value:
        raise AllocationError(f"found SLURM_JOB_ID but no {name}: is the environment of the job complete?")
    return value


def _number(env: Mapping[str, str], name: str, absent: int) -> int:
    value = env.get(name, "")
    if value and not value.lstrip("-").isdigit():
        raise AllocationError(f"found {name}={value!r}, wanted a whole number")
    return int(value) if value else absent


def _nodes(env: Mapping[str, str], suffix: str) -> tuple[str, ...]:
    """A step on a part of an ordinary job has those nodes only."""
    name = f"SLURM_JOB_NODELIST{suffix}"
    in_step = "SLURM_STEP_NODELIST" in env and not suffix
    try:
        return expand(_text(env, "SLURM_STEP_NODELIST" if in_step else name))
    except HostlistError as error:
        raise AllocationError(f"{name}: {error}") from error


def _tasks(env: Mapping[str, str], suffix: str, in_step: bool) -> int:
    """Tasks of a component; salloc without -n says none, then there is one for each node."""
    for name in (f"SLURM_NTASKS{suffix}", f"SLURM_NPROCS{suffix}"):
        if env.get(name) and (suffix or in_step):
            return _number(env, name, 0)
    counts = env.get(f"SLURM_TASKS_PER_NODE{suffix}", "")
    return _count_tasks(counts) if counts else len(_nodes(env, suffix))


def _count_tasks(text: str) -> int:
    """`2(x3),1` is 7."""
    total = 0
    for part in text.split(","):
        count, _, times = part.partition("(x")
        try:
            total += int(count) * int(times.rstrip(")") or 1)
        except ValueError:
            raise AllocationError(f"found SLURM_TASKS_PER_NODE={text!r}, wanted the form 2(x3),1") from None
    return total


def _job_end(env: Mapping[str, str]) -> float | None:
    """What our batch script exports, else what newer Slurm versions do."""
    for name in ("EBBTIDE_JOB_END", "SLURM_JOB_END_TIME"):
        try:
            return float(env[name])
        except (KeyError, ValueError):
            continue
    return None
