"""Who runs where: the parts of the job, its nodes in order, and which driver works with which engine.

Pure: from the run file alone, so that every process and the login node come to the same answer. Nodes count from 0 over
all parts, in the order of the parts; the trainers' nodes come first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from core.config.schema import PlacementConfig, RunConfig, SlurmComponent
from modelcfg.stages import Stages

FEWEST_RUNNING, MOST_RUNNING = 64, 256  # more add little to the speed, and want CUDA graphs and a KV cache


@dataclass(frozen=True)
class Part:
    """One component of the job, with what the run file leaves to be worked out.

    Attributes:
        num_engines: per node.
        gpus_used: per node, by the processes of a run on GPUs.
    """

    index: int
    config: SlurmComponent
    nodes: int
    num_engines: int
    num_reward_workers: int
    gpus_used: int

    @property
    def role(self) -> str:
        """trainers, engines or rewards."""
        return self.config.role


@dataclass(frozen=True)
class Node:
    """One node of the run: one agent, one Slurm task."""

    number: int
    part: Part
    index: int  # within the part

    @property
    def role(self) -> str:
        """Role of the node's part."""
        return self.part.role

    @cached_property
    def engines(self) -> tuple[str, ...]:
        """The names of the node's engines."""
        return tuple(engine_name(self.number, i) for i in range(self.part.num_engines))


def pipeline_stages(placement: PlacementConfig) -> Stages:
    """The pipeline, for the layers of its stages."""
    return Stages(placement.pipeline_parallel, placement.pipeline_first_layers, placement.pipeline_last_layers)


def components(config: RunConfig) -> tuple[Part, ...]:
    """The parts of the job; without `slurm.components` there is one, the trainers."""
    parts = config.slurm.components or (SlurmComponent(role="trainers"),)
    return tuple(_part(config, index, part) for index, part in enumerate(parts))


def nodes(config: RunConfig) -> tuple[Node, ...]:
    """All nodes of the run, in the order of Slurm's global task ids."""
    found: list[Node] = []
    for part in components(config):
        found += [Node(len(found) + index, part, index) for index in range(part.nodes)]
    return tuple(found)


def engine_gpus(config: RunConfig, node: Node, index: int) -> range:
    """The GPUs of an engine, as places among those of its node; trainer rank i of a node has place i."""
    size = config.placement.engine_tensor_parallel
    beside = config.placement.trainers_per_node if _own_gpus(config, node.role) else 0
    return range(beside + index * size, beside + (index + 1) * size)


def colocated_engines(config: RunConfig, node: int) -> tuple[str, ...]:
    """The engines on the GPUs of the trainer ranks of a node."""
    found = nodes(config)[node]
    colocated = found.role == "trainers" and config.placement.engines == "colocated"
    return found.engines if colocated else ()


def driven_engines(config: RunConfig, node: int) -> list[str]:
    """The engines that the driver of trainer node `node` works with: its own, and its share of those elsewhere."""
    everywhere = nodes(config)
    remote = [name for other in everywhere if other.role == "engines" for name in other.engines]
    return [*everywhere[node].engines, *remote[node :: config.placement.num_nodes]]


def num_engines(config: RunConfig) -> int:
    """Engines of the whole run, those on nodes of their own included."""
    return sum(len(node.engines) for node in nodes(config))


def running_requests(config: RunConfig, device: str) -> int:
    """How many samples one engine makes at the same time: as said, or its share of a step's if a GPU may hold them.

    Half of a step's at a time take longer than all at once: whoever comes last then began late.
    """
    asked = config.placement.engine_max_running_requests
    if asked is not None or device == "cpu":
        return asked or FEWEST_RUNNING
    rollout = config.rollout
    groups = math.ceil(rollout.num_drawn / max(1, num_engines(config)))
    return min(max(groups * rollout.n_samples_per_prompt, FEWEST_RUNNING), MOST_RUNNING)


def engine_name(node: int, index: int) -> str:
    """The name under which an engine is published."""
    return f"node{node}-engine{index}"


def rewards_name(node: int) -> str:
    """The name under which a node's reward server is published."""
    return f"node{node}-rewards"


def rewards_names(config: RunConfig) -> list[str]:
    """All reward servers of the run; none if samples are scored where they are made."""
    return [rewards_name(node.number) for node in nodes(config) if node.role == "rewards"]


def _own_gpus(config: RunConfig, role: str) -> bool:
    return role == "trainers" and config.placement.engines == "own_gpus"


def _part(config: RunConfig, index: int, part: SlurmComponent) -> Part:
    placement = config.placement
    beside = 0 if placement.engines == "none" else placement.engines_per_node
    engines = {"trainers": beside, "engines": part.engines_per_node or 1}.get(part.role, 0)
    trainers = placement.trainers_per_node if part.role == "trainers" else 0
    of_engines = engines * placement.engine_tensor_parallel
    return Part(
        index=index,
        config=part,
        nodes=placement.num_nodes if part.role == "trainers" else part.nodes or 1,
        num_engines=engines,
        num_reward_workers=(part.num_workers or config.reward.num_workers) if part.role == "rewards" else 0,
        gpus_used=trainers + of_engines if _own_gpus(config, part.role) else max(trainers, of_engines),
    )
