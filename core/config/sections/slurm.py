"""The section `slurm` of a run file, and the parts of the job."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from common.mistake import Wrong
from core.config.sections.section import NonNegativeInt, PositiveInt, Section


def _minutes(value: Any) -> Any:
    """A bare number is a time limit in minutes, as it is for Slurm."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _option_value(value: Any) -> Any:
    """A number is written as it is, and a switch without a value: `hold: true`."""
    if value is False:
        raise Wrong("false", "a value, or true for a switch", "leave the option out")
    return "" if value is True else str(value) if isinstance(value, int) else value


class SlurmComponent(Section):
    """One part of the job; every part has its own nodes."""

    role: Literal["trainers", "engines", "rewards"] = Field(
        description="trainers (with the colocated engines; always the first), engines on nodes of their own, or reward "
        "workers"
    )
    nodes: PositiveInt | None = Field(None, description="trainers: placement.num_nodes; others: 1 if left out")
    gpus_per_node: NonNegativeInt | None = Field(
        None,
        description="GPUs asked of Slurm; left out: the number that its processes use, 0 if placement.device is cpu",
    )
    cpus_per_task: PositiveInt | None = Field(None, description="cores per node (one task runs on each)")
    mem: str | None = Field(None, description="host memory per node, as Slurm spells it: 64G")
    partition: str | None = Field(None, description="left out: the site file's")
    constraint: str | None = Field(None, description="node features, as in sbatch --constraint")
    exclusive: bool = Field(False, description="whole nodes, shared with no other job")
    sbatch: dict[str, Annotated[str, BeforeValidator(_option_value)]] = Field(
        default_factory=dict, description="further long options of sbatch for this part: qos, reservation, …"
    )
    engines_per_node: PositiveInt | None = Field(None, description="engines: SGLang servers per node; 1 if left out")
    num_workers: PositiveInt | None = Field(
        None, description="rewards: scoring processes per node; reward.num_workers if left out"
    )


class SlurmConfig(Section):
    """The job on a cluster: read by `ebbtide submit`, `sbatch` and `sweep`; `ebbtide run` needs none of it."""

    time: Annotated[str | None, BeforeValidator(_minutes)] = Field(
        None,
        description="time limit of one attempt, as Slurm spells it: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS; "
        "null: the site file's, else one hour",
    )
    signal_s: PositiveInt = Field(
        180, description="how long before the limit Slurm warns the run, which then saves and requeues itself"
    )
    components: tuple[SlurmComponent, ...] = Field(
        (), description="parts of a heterogeneous job; left out: one part, the trainers on placement.num_nodes nodes"
    )
    heterogeneous: bool = Field(
        True, description="false: one allocation with the same processes, for clusters without heterogeneous jobs"
    )
    max_timeouts: NonNegativeInt = Field(100, description="how often the run may requeue itself at the time limit")
    max_preemptions: NonNegativeInt = Field(1000, description="how often it may do so after a preemption")
    max_failures: NonNegativeInt = Field(
        3, description="how often it may do so without a node that failed or on which a process was killed"
    )
    chain: PositiveInt = Field(
        4, description="on a site that forbids requeue: how many jobs are submitted, each after the one before"
    )
    exclude: tuple[str, ...] = Field((), description="nodes not to be used")
    environment: dict[str, str] = Field(default_factory=dict, description="variables set in the job")
