"""Host memory of a checkpoint that is written while the run goes on."""

from __future__ import annotations

from common.memory_size import slurm_memory_bytes
from core.checks.parallel import replica_size
from core.config.schema import RunConfig
from core.planner.disk import plan_disk
from core.planner.memory import TIGHT, MemoryPlan
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


def asked_memory(config: RunConfig) -> int | None:
    """Host memory of a node with trainers, as asked of Slurm; None: nothing is said of it."""
    asked = (part.mem for part in config.slurm.components if part.role == "trainers" and part.mem)
    return next(map(slurm_memory_bytes, asked), None)
