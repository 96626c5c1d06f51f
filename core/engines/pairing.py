"""Which engines run on whose GPUs: what trainer ranks and engines say of themselves, compared by UUID. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from core.processes.rendezvous import Member


class WrongGpu(RuntimeError):
    """An engine runs on a GPU that is not meant for it."""


def check_gpus(engines: Sequence[Member], trainers: Sequence[Member], *, colocated: bool) -> None:
    """Compare the engines of a node with its trainer ranks.

    Args:
        colocated: every GPU of an engine must be some rank's; else none may be.
    Raises:
        WrongGpu: naming engine, GPU and ranks.
    """
    ranks = {bare(uuid): member for member in trainers for uuid in member.devices}
    for engine in engines:
        for uuid in engine.devices:
            rank = ranks.get(bare(uuid))
            if colocated and rank is None:
                have = ", ".join(f"{member.name}: {' '.join(member.devices)}" for member in trainers)
                raise WrongGpu(
                    f"engine {engine.name} runs on {uuid} of {engine.host}, which no trainer rank of the node has "
                    f"({have}); wanted one of these: see that trainers and engines are started with the same "
                    "CUDA_VISIBLE_DEVICES"
                )
            if not colocated and rank is not None:
                raise WrongGpu(
                    f"engine {engine.name} runs on {uuid} of {engine.host}, where trainer rank {rank.name} is; wanted "
                    "a GPU of its own: set placement.engines to colocated, or give the node more GPUs"
                )


def serving_ranks(engine: Member, places: Sequence[int], trainers: Sequence[Member]) -> tuple[int, ...]:
    """Which trainer rank of the node serves each tensor-parallel rank of a colocated engine: the one on its GPU.

    Args:
        places: of the engine's ranks among the devices of the node. On a CPU, where there are no UUIDs, the trainer
            ranks have them in turns.
        trainers: all ranks of the node, in order.
    Returns:
        local ranks, in the order of the engine's ranks.
    Raises:
        WrongGpu: the engine runs on other GPUs.
    """
    if not engine.devices:
        return tuple(place % len(trainers) for place in places)
    if len(engine.devices) != len(places):
        raise WrongGpu(f"engine {engine.name} has {len(engine.devices)} GPUs, wanted {len(places)}: one for each rank")
    check_gpus([engine], trainers, colocated=True)
    local_ranks = {bare(uuid): number for number, member in enumerate(trainers) for uuid in member.devices}
    return tuple(local_ranks[bare(uuid)] for uuid in engine.devices)


def bare(uuid: str) -> str:
    """A UUID without what kind it is of: torch leaves `GPU-` and `MIG-` out, nvidia-smi does not."""
    return uuid.removeprefix("GPU-").removeprefix("MIG-").lower()
