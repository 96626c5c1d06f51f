"""Settings of an engine with which its KV cache has room, and its GPU room for both."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from core.config.layout import FEWEST_RUNNING
from core.config.schema import RunConfig
from core.planner import engine
from core.planner.changes import Changes, apply, without_present
from core.planner.decisions import plan_memory
from core.planner.machine import PER_NODE, SIZES
from core.planner.memory import GENERATING, TIGHT, Device
from modelcfg import ModelShape

PERCENTS = range(5, 96)
FRACTION, SPLIT, COUNT, SPREAD = (
    f"placement.{name}"
    for name in ("engine_memory_fraction", "engine_tensor_parallel", "engines_per_node", "engine_nodes")
)
MOST_NODES = 8  # of an engine: with more, what its ranks tell each other takes longer than what they compute


def engine_changes(config: RunConfig, shape: ModelShape, device: Device, wanted: int, least: int = 1) -> Changes | None:
    """The least change with room for the samples that are wanted, or for `least` of them; None: there is none."""
    for split in engine_splits(config, device):
        fraction = fitting_fraction(apply(config, split), shape, device, wanted, least)
        if fraction is not None:
            return without_present(config, {**split, FRACTION: fraction})
    return None


def engine_splits(config: RunConfig, device: Device) -> Iterator[Changes]:
    """The present number of GPUs per engine, then more; fewer engines where the node has no GPUs for all.

    What a node does not hold, all GPUs of several do, a number that divides the nodes.
    """
    placement = config.placement
    present, count = placement.engine_tensor_parallel, placement.engines_per_node
    room = placement.trainers_per_node
    if placement.engines == "own_gpus":
        room = (device.per_node or PER_NODE) - placement.trainers_per_node
    yield {}
    yield from ({SPLIT: size, COUNT: min(count, room // size)} for size in SIZES if present < size <= room)
    said = placement.engines == "own_gpus" or placement.engine_nodes is not None  # else the GPUs of an engine say it
    for nodes in range(2, min(MOST_NODES, placement.num_nodes) + 1):
        if placement.num_nodes % nodes == 0 and nodes * room > present:
            yield {SPLIT: nodes * room, COUNT: 1, **({SPREAD: nodes} if said else {})}


def fitting_fraction(config: RunConfig, shape: ModelShape, device: Device, wanted: int, least: int = 1) -> float | None:
    """The share of the GPU next to the present one: enough for the samples, and not too much for the rest."""

    def room(percent: int) -> int:
        return sample_room(apply(config, {FRACTION: percent / 100}), shape, device)

    def is_too_much(percent: int) -> bool:
        return not plan_memory(apply(config, {FRACTION: percent / 100}), shape, device).fits(GENERATING, TIGHT)

    most = bisect_left(PERCENTS, True, key=is_too_much) - 1
    if most < bisect_left(PERCENTS, least, key=room):
        return None
    enough = PERCENTS[bisect_left(PERCENTS, min(wanted, room(PERCENTS[most])), key=room)] / 100
    return min(max(config.placement.engine_memory_fraction, enough), PERCENTS[most] / 100)


def sample_room(config: RunConfig, shape: ModelShape, device: Device) -> int:
    """The longest samples that the KV cache of an engine has room for."""
    cache = engine.cache(config, shape, device.kind, device.total_bytes or 0)
    return cache.samples(config.sample_tokens)


def wanted_samples(config: RunConfig) -> int:
    """The samples that an engine would work on at a time, if its cache had room for them."""
    rollout = config.rollout
    step = rollout.num_drawn * rollout.n_samples_per_prompt
    return min(step, config.placement.engine_max_running_requests or FEWEST_RUNNING)
