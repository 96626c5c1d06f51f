"""The GPUs of this node, by UUID: which are an engine's, and how they are named to the processes that use them.

Trainer rank i has the i-th visible GPU. An engine is told its own only, in the order of its tensor-parallel ranks.
Names are indices in the order of the PCI bus, as nvidia-smi and Slurm count: SGLang reads them as numbers where an
engine has several GPUs. MIG instances have only UUIDs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from core.config.layout import Node, engine_gpus
from core.config.schema import RunConfig
from core.processes.device import resolve_device
from hpc.node.gpus import NoSuchGpu, VisibleGpu, ask_gpus, visible_gpus

ASK_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class EngineGpus:
    """What an engine is given. On a CPU nothing."""

    uuids: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


def gpus_of_engine(config: RunConfig, node: Node, index: int) -> EngineGpus:
    """The GPUs of engine `index` of this node.

    Raises:
        NoSuchGpu: the node has fewer GPUs.
    """
    if resolve_device(config.placement.device) != "cuda":
        return EngineGpus()
    return choose(node_gpus(), engine_gpus(config, node, index), node.number)


def trainer_environment(config: RunConfig) -> dict[str, str]:
    """The same GPUs in the same order for the trainer ranks."""
    return naming(node_gpus()) if resolve_device(config.placement.device) == "cuda" else {}


@cache
def node_gpus() -> tuple[VisibleGpu, ...]:
    """All GPUs that this process may use; asked once."""
    return visible_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))


def choose(gpus: Sequence[VisibleGpu], places: range, node: int) -> EngineGpus:
    """The GPUs at `places`, in their order. Pure."""
    if places.stop > len(gpus):
        raise NoSuchGpu(
            f"node {node} has {len(gpus)} GPUs that may be used ({', '.join(gpu.uuid for gpu in gpus)}), an "
            f"engine wants those at places {places.start} to {places.stop - 1}: use fewer or smaller engines, or a "
            "node with more GPUs"
        )
    own = [gpus[place] for place in places]
    return EngineGpus(tuple(gpu.uuid for gpu in own), tuple(naming(own).items()))


def capability_of_engine(gpus: EngineGpus) -> float | None:
    """The least compute capability of an engine's GPUs; None: it has none, or nvidia-smi does not tell, as of MIG."""
    found, _ = ask_gpus(",".join(gpus.uuids), ASK_TIMEOUT_S)
    told = [gpu.capability for gpu in found if gpu.capability is not None]
    return min(told) if told and len(told) == len(gpus.uuids) else None


def naming(gpus: Sequence[VisibleGpu]) -> dict[str, str]:
    """The environment in which a process sees these GPUs, in this order."""
    by_index = all(gpu.index is not None for gpu in gpus)
    names = [str(gpu.index) if by_index else gpu.uuid for gpu in gpus]
    return {"CUDA_VISIBLE_DEVICES": ",".join(names), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
