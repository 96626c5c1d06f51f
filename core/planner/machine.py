"""Machines of one kind of GPU, and how a model may be laid out on them. Pure, and without bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from core.config.layout import share_gpus
from core.config.schema import RunConfig
from core.planner.memory import Device
from modelcfg import ModelShape

PER_NODE = 8  # GPUs of a node, where that is not known
SIZES = (1, 2, 4, 8)
NODES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64)
# What splitting costs an update, roughly: of layers per doubling, of experts per doubling, and of either beyond a node
TENSOR_COST, EXPERT_COST, FAR_COST = 0.08, 0.03, 0.3


class Machine(NamedTuple):
    """Nodes with trainers, and the GPUs that trainers have on each."""

    nodes: int
    per_node: int

    @property
    def num_gpus(self) -> int:
        """All of them."""
        return self.nodes * self.per_node

    def __str__(self) -> str:
        gpus = f"{self.per_node} GPU{'s' if self.per_node > 1 else ''}"
        return gpus if self.nodes == 1 else f"{self.nodes} nodes × {gpus}"


class Layout(NamedTuple):
    """How trainer ranks share a model."""

    tensor: int
    pipeline: int
    expert: int


def machine_of(config: RunConfig) -> Machine:
    """The machine that a run file asks for."""
    return Machine(config.placement.num_nodes, config.placement.trainers_per_node)


def larger_machines(config: RunConfig, device: Device) -> list[Machine]:
    """Others with this number of GPUs or more, smallest first; those of several nodes have full ones."""
    here, most = machine_of(config), most_per_node(config, device)
    sizes = [size for size in SIZES if size < most] + [most]
    found = {Machine(1, size) for size in sizes} | {Machine(nodes, most) for nodes in NODES}
    found |= {Machine(nodes, here.per_node) for nodes in NODES if here.per_node <= most}
    enough = (machine for machine in found - {here} if machine.num_gpus >= here.num_gpus)
    return sorted(enough, key=lambda machine: (machine.num_gpus, machine.nodes))


def most_per_node(config: RunConfig, device: Device) -> int:
    """GPUs that trainers of a node may have; engines with GPUs of their own need theirs beside."""
    placement = config.placement
    beside = placement.engines_per_node * share_gpus(placement) if placement.engines == "own_gpus" else 0
    return max(1, (device.per_node or max(PER_NODE, placement.trainers_per_node)) - beside)


def layouts(shape: ModelShape, machine: Machine) -> Iterator[Layout]:
    """All that could be, whatever their bytes: tensor parallel within a node, and of models without experts alone, of
    which expert parallel saves more; where the layers do not divide, a last stage of another length.
    """
    pipelines = sorted({*_divisors(shape.num_layers), *(size for size in SIZES if size <= shape.num_layers)})
    for tensor in [1] if shape.num_experts else _divisors(machine.per_node):
        for pipeline in pipelines:
            replicas, rest = divmod(machine.num_gpus, tensor * pipeline)
            if rest == 0:
                shared = math.gcd(replicas, shape.num_experts) if shape.num_experts else 1
                yield from (Layout(tensor, pipeline, expert) for expert in _divisors(shared))


def cost(layout: Layout, machine: Machine, rows: int) -> float:
    """How long an update takes, for the order of a search: 1 is the time without any split, on the same GPUs.

    Args:
        rows: packed rows of an optimiser step, over all replicas.
    """
    replicas = machine.num_gpus // (layout.tensor * layout.pipeline)
    bubble = (layout.pipeline - 1) / max(1, rows / replicas)
    split = TENSOR_COST * math.log2(layout.tensor) + EXPERT_COST * math.log2(layout.expert)
    far = FAR_COST * (layout.tensor * layout.expert > machine.per_node)
    return (1 + bubble) * (1 + split + far)


def _divisors(count: int) -> list[int]:
    return [size for size in range(1, count + 1) if count % size == 0]
