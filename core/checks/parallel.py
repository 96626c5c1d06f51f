"""Parallel sizes against the ranks and devices there are."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake
from core.config import layout
from core.config.schema import RunConfig
from core.config.sections.placement import PlacementConfig


def ranks_divide(config: RunConfig) -> Iterator[Mistake]:
    """A whole number of model replicas."""
    placement, context = config.placement, config.placement.context_parallel
    product = replica_size(placement) * context
    if num_trainers(placement) % product:
        yield Mistake(
            "placement.tensor_parallel" if context == 1 else "placement.context_parallel",
            None,
            f"tensor_parallel {placement.tensor_parallel} × pipeline_parallel {placement.pipeline_parallel}"
            f"{f' × context_parallel {context}' if context > 1 else ''} = {product}",
            f"a divisor of the {num_trainers(placement)} trainer ranks ({placement.num_nodes} nodes × "
            f"{placement.trainers_per_node} trainers_per_node)",
            f"choose sizes whose product divides {num_trainers(placement)}",
        )


def experts_divide(config: RunConfig) -> Iterator[Mistake]:
    """A whole number of sets of experts, each of which is cut over tensor-parallel ranks, if at all."""
    placement = config.placement
    tensor, cut = placement.tensor_parallel, placement.expert_tensor_parallel
    if tensor % cut:
        found, wanted = str(cut), f"a divisor of tensor_parallel {tensor}, over whose ranks experts are cut"
        yield Mistake(
            "placement.expert_tensor_parallel",
            None,
            found,
            wanted,
            f"use {_divisors(tensor)}, or raise tensor_parallel",
        )
        return
    ranks, rest = divmod(num_trainers(placement), placement.pipeline_parallel)
    if rest or ranks % (placement.expert_parallel * cut) == 0:  # `ranks_divide` reports a rest
        return
    of_experts = f" × expert_tensor_parallel {cut} = {placement.expert_parallel * cut}" if cut > 1 else ""
    yield Mistake(
        "placement.expert_parallel",
        None,
        f"{placement.expert_parallel}{of_experts}",
        f"a divisor of the {_count(ranks, 'rank')} of a stage ({_count(num_trainers(placement), 'trainer rank')} / "
        f"pipeline_parallel {placement.pipeline_parallel})",
        f"use {_divisors(ranks // cut if ranks % cut == 0 else ranks)}",
    )


def batch_divides_over_replicas(config: RunConfig) -> Iterator[Mistake]:
    """Every data-parallel rank gets the same number of samples of a global batch."""
    placement, size = config.placement, config.train.global_batch_size
    of_a_row = replica_size(placement) * placement.context_parallel
    replicas, rest = divmod(num_trainers(placement), of_a_row)
    if rest or size % replicas == 0:  # `ranks_divide` reports a rest
        return
    yield Mistake(
        "train.global_batch_size",
        None,
        f"{size} samples per optimiser step",
        f"a multiple of the data-parallel size {replicas} ({num_trainers(placement)} trainer ranks / "
        f"{of_a_row} per model replica)",
        f"use {size // replicas * replicas or replicas} or {(size // replicas + 1) * replicas}, or fewer trainer ranks"
        if size > replicas
        else f"use {replicas}, or fewer trainer ranks",
    )


def sequence_parallel_has_peers(config: RunConfig) -> Iterator[Mistake]:
    """Sequence parallelism splits over the tensor-parallel ranks."""
    if config.placement.sequence_parallel and config.placement.tensor_parallel == 1:
        yield Mistake(
            "placement.sequence_parallel",
            None,
            "true with tensor_parallel 1",
            "tensor_parallel > 1, whose ranks share out the sequence",
            "set sequence_parallel to false, or raise tensor_parallel",
        )


def engines_fit_devices(config: RunConfig) -> Iterator[Mistake]:
    """Colocated engines use the trainer ranks' devices, one per rank. CPU processes have no such limit."""
    placement = config.placement
    needed, num_nodes = placement.engines_per_node * layout.share_gpus(placement), layout.engine_nodes(placement)
    if placement.engines == "colocated" and placement.device != "cpu" and needed > placement.trainers_per_node:
        yield Mistake(
            "placement.engines_per_node",
            None,
            f"engines_per_node {placement.engines_per_node} × engine_tensor_parallel "
            f"{placement.engine_tensor_parallel}{f' / {num_nodes} nodes' if num_nodes > 1 else ''} = "
            f"{_count(needed, 'GPU')} per node",
            f"at most the {_count(placement.trainers_per_node, 'GPU')} per node that trainers_per_node gives",
            "use fewer or smaller engines, raise trainers_per_node, set placement.engines to own_gpus, or "
            "placement.device to cpu",
        )


def engines_fit_nodes(config: RunConfig) -> Iterator[Mistake]:
    """An engine over several nodes has the same share of its GPUs on each, and the nodes of a part hold whole ones."""
    placement = config.placement
    size, num_nodes = placement.engine_tensor_parallel, layout.engine_nodes(placement)
    if size % num_nodes:
        yield Mistake(
            "placement.engine_nodes",
            None,
            f"{num_nodes}, for engines of {_count(size, 'GPU')}",
            f"a divisor of engine_tensor_parallel, {size}",
            f"use {_divisors(size)}, or another engine_tensor_parallel",
        )
        return
    implied = placement.engine_nodes is None
    or_else = (
        f"raise trainers_per_node to {size}, or lower engine_tensor_parallel" if implied else "engines of fewer nodes"
    )
    for part in layout.components(config):
        if part.num_engines and part.nodes % num_nodes:
            trains = part.role == "trainers"
            yield Mistake(
                "placement.num_nodes" if trains else f"slurm.components.{part.index}.nodes",
                None,
                f"{part.nodes}, and engines of {_count(size, 'GPU')} over {num_nodes} nodes"
                f"{f' of trainers_per_node {placement.trainers_per_node}' if implied else ''}",
                f"a multiple of {num_nodes}",
                f"use {-(-part.nodes // num_nodes) * num_nodes}, or {or_else}",
            )


def own_gpus_are_not_shared(config: RunConfig) -> Iterator[Mistake]:
    """Engines with GPUs of their own have nobody to give memory back to."""
    if config.placement.engines == "own_gpus" and config.placement.offload == "on":
        yield Mistake(
            "placement.offload",
            None,
            "offload on with placement.engines own_gpus",
            "auto or off: trainers and engines share no GPU",
            "leave it out, or set placement.engines to colocated",
        )


def num_trainers(placement: PlacementConfig) -> int:
    """Trainer ranks of the whole run."""
    return placement.num_nodes * placement.trainers_per_node


def replica_size(placement: PlacementConfig) -> int:
    """Trainer ranks that hold one model together; context-parallel ones hold a copy each."""
    return placement.tensor_parallel * placement.pipeline_parallel


def _divisors(number: int) -> str:
    """What divides a number, as a remedy says it."""
    found = [str(one) for one in range(1, number + 1) if number % one == 0]
    return f"one of {', '.join(found)}" if len(found) > 1 else found[0]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
