"""Whether a run file's nodes are those of an allocation. Pure."""

from __future__ import annotations

from core.config.schema import RunConfig
from core.layout import nodes


class Misfit(ValueError):
    """The run wants another number of nodes than the allocation has."""


def fitting(config: RunConfig, job_id: str, num_nodes: int) -> list[str]:
    """What to change in a run file, as `--set` texts, so that the run uses all nodes of an allocation.

    Raises:
        Misfit: the run file itself says how many nodes it wants, and these are others.
    """
    wanted = len(nodes(config))
    if wanted == num_nodes:
        return []
    if config.slurm.components or "num_nodes" in config.placement.model_fields_set:
        key = "slurm.components" if config.slurm.components else "placement.num_nodes"
        raise Misfit(
            f"{key}: found a run on {wanted} node{'s' if wanted > 1 else ''}; wanted one on the {num_nodes} of "
            f"allocation {job_id}: leave {key} out to use all of them, or allocate others: salloc --nodes={wanted}"
        )
    return [f"placement.num_nodes={num_nodes}"]
