"""A run file's nodes against those of an allocation. Pure."""

from __future__ import annotations

from core.config.layout import nodes
from core.config.schema import RunConfig


class Misfit(ValueError):
    """The allocation has too few nodes for the parts of the run."""


def fitting(config: RunConfig, job_id: str, num_nodes: int) -> list[str]:
    """What to change in a run file, as `--set` texts, so that the run uses all nodes of an allocation.

    The trainers take what the other components leave.
    Raises:
        Misfit: no node would be left for the trainers.
    """
    others = sum(node.role != "trainers" for node in nodes(config))
    trainers = num_nodes - others
    if trainers < 1:
        raise Misfit(
            f"slurm.components: found an allocation ({job_id}) of {num_nodes} nodes; wanted {others} for the parts "
            "that are not trainers and at least one more: allocate more nodes, or leave slurm.components out"
        )
    return [] if trainers == config.placement.num_nodes else [f"placement.num_nodes={trainers}"]
