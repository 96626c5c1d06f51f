"""Host memory of a checkpoint that is written while the run goes on."""

from __future__ import annotations

from common.memory_size import slurm_memory_bytes
from common.mistake import Wrong
from core.checks.parallel import replica_size
from core.config.schema import RunConfig
from core.planner.disk import plan_disk
from core.planner.memory import TIGHT, MemoryPlan
from core.residency.memory import gib
from modelcfg import ModelShape


def save_bytes(config: RunConfig, shape: ModelShape, device: str) -> int:
    """Copies on a node, at most: what its ranks of one replica have of a checkpoint. Other replicas write nothing, but
    their experts under expert parallelism, which the first has not then.
    """
    replica, on_node = replica_size(config.placement), config.placement.trainers_per_node
    return plan_disk(config, shape, device).checkpoint * min(replica, on_node) // replica


def saves_apart(config: RunConfig, plan: MemoryPlan, host_bytes: int) -> bool:
    """Whether checkpoints are written while the run goes on. With `checkpoint.asynchronous: auto`, where there is room.

    Args:
        host_bytes: memory of a node.
    """
    if config.checkpoint.asynchronous != "auto":
        return config.checkpoint.asynchronous == "on"
    others = plan.needed_bytes() if plan.device.kind == "cpu" else plan.host_bytes
    return others + plan.save_bytes <= TIGHT * min(host_bytes, asked_memory(config) or host_bytes)


def host_shortage(config: RunConfig, plan: MemoryPlan, host_bytes: int, whose: str) -> Wrong | None:
    """Why what trainer ranks park on a node would end them: they are killed without a word. None: there is room for it.

    Args:
        host_bytes: memory that they may use. whose: who has it, or sets it.
    """
    if plan.device.kind == "cpu" or plan.host_bytes <= host_bytes:
        return None
    ranks = config.placement.trainers_per_node
    found = f"{gib(host_bytes)} GiB of host memory, by {whose}"
    wanted = f"room for the {gib(plan.host_bytes)} GiB that {ranks} trainer ranks park"
    return Wrong(found, wanted, "ask Slurm for more (mem of the component), or for more nodes with fewer ranks on each")


def asked_memory(config: RunConfig) -> int | None:
    """Host memory of a node with trainers, as asked of Slurm; None: nothing is said of it."""
    asked = (part.mem for part in config.slurm.components if part.role == "trainers" and part.mem)
    return next(map(slurm_memory_bytes, asked), None)
