"""Who runs where: the parts of the job, its nodes in order, and which driver works with which engine.

Pure: from the run file alone, so that every process and the login node come to the same answer. Nodes count from 0 over
all parts, in the order of the parts; the trainers' nodes come first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from core.config.schema import RunConfig
from core.config.sections.placement import PlacementConfig
from core.config.sections.slurm import SlurmComponent
from modelcfg.stages import Stages

FEWEST_RUNNING, MOST_RUNNING = 64, 256  # more add little to the speed, and want CUDA graphs and a KV cache


@dataclass(frozen=True)
class Part:
    """One component of the job, with what the run file leaves to be worked out.

    Attributes:
        num_engines: per node; of those that are spread over several, their shares.
        engine_nodes: nodes of one engine: this number of neighbours.
        gpus_used: per node, by the processes of a run on GPUs.
    """

    index: int
    config: SlurmComponent
    nodes: int
    num_engines: int
    engine_nodes: int
    num_reward_workers: int
    gpus_used: int

    @property
    def role(self) -> str:
        """trainers, engines or rewards."""
        return self.config.role


@dataclass(frozen=True)
class Share:
    """What a node has of an engine: all of it, or one of its shares. The first has the server, the others are its arms.

    Attributes:
        engine: name of the whole.
        index: among the shares of the node.
        rank: among the shares of the engine, in the order of their nodes.
    """

    engine: str
    index: int
    rank: int

    @property
    def name(self) -> str:
        """The name under which its process is published."""
        return arm_name(self.engine, self.rank) if self.rank else self.engine


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
    def shares(self) -> tuple[Share, ...]:
        """What the node has of engines."""
        rank = self.index % self.part.engine_nodes
        return tuple(Share(engine_name(self.number - rank, i), i, rank) for i in range(self.part.num_engines))

    @cached_property
    def engines(self) -> tuple[str, ...]:
        """The names of the node's engines: of those that are spread over several, their first node's."""
        return tuple(share.engine for share in self.shares if share.rank == 0)


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


def engine_nodes(placement: PlacementConfig) -> int:
    """Nodes of one engine: as said, or those that have its GPUs where it shares the trainers'."""
    if placement.engine_nodes is not None or placement.engines != "colocated" or placement.device == "cpu":
        return placement.engine_nodes or 1
    nodes, rest = divmod(placement.engine_tensor_parallel, placement.trainers_per_node)
    return nodes if nodes > 1 and not rest else 1


def share_gpus(placement: PlacementConfig) -> int:
    """GPUs that one engine has on each of its nodes."""
    return placement.engine_tensor_parallel // engine_nodes(placement)


def engine_gpus(config: RunConfig, node: Node, index: int) -> range:
    """The GPUs of a node's share of an engine, as places among those of the node, where trainer rank i has place i."""
    size = share_gpus(config.placement)
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


def serving_together(config: RunConfig) -> int:
    """Trainer ranks, one after the other, that hand weights to the same engines: those of the nodes of an engine."""
    placement = config.placement
    return placement.trainers_per_node * engine_nodes(placement) if placement.engines == "colocated" else 1


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


def arm_name(engine: str, rank: int) -> str:
    """The name of an engine's share on its node `rank`, which is not the first."""
    return f"{engine}-arm{rank}"


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
    of_engines = engines * share_gpus(placement)
    return Part(
        index=index,
        config=part,
        nodes=placement.num_nodes if part.role == "trainers" else part.nodes or 1,
        num_engines=engines,
        engine_nodes=engine_nodes(placement),
        num_reward_workers=(part.num_workers or config.reward.num_workers) if part.role == "rewards" else 0,
        gpus_used=trainers + of_engines if _own_gpus(config, part.role) else max(trainers, of_engines),
    )
