"""Layouts of a model on machines, the one that costs least time first, until the plan of one fits.

A search plans with every layout that the checks accept. One that could not hold parameters and gradients alone is
passed over by arithmetic, so that the largest model takes no longer than a few seconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from common.units import FP32_BYTES, GIB
from core.checks import overlap
from core.checks.needs import needs_values
from core.config.schema import RunConfig
from core.planner.changes import Changes, accepted, apply, pipeline_changes, without_present
from core.planner.decisions import plan_memory
from core.planner.engine import weight_bytes
from core.planner.engine_room import FRACTION, engine_splits, fitting_fraction, wanted_samples
from core.planner.machine import Layout, Machine, cost, larger_machines, layouts, machine_of
from core.planner.memory import TRAINING, Device
from core.planner.saves import asked_memory
from core.planner.stages import has_engines
from modelcfg import ModelShape, num_parameters, parameter_parts

ALL_LAYERS: Changes = {"train.recompute": "full", "train.recompute_layers": None}
TOKENS = "train.max_tokens_per_micro_batch"
STEP_TOKENS = 256
RECOMPUTE_COST = 4 / 3  # one more pass forward
HOST_PER_GPU = 256 * GIB  # host memory, where the run file does not say what it asks for
GPU_GIB = (22.0, 44.3, 79.1, 94.0, 139.7, 178.0, 268.0)  # what cards hold, for the smallest that would do


class Found(NamedTuple):
    """A machine, its GPUs, and the settings with which the run fits on it."""

    machine: Machine
    device: Device
    changes: Changes


def smallest_machine(config: RunConfig, shape: ModelShape, device: Device, share: float) -> Found | None:
    """The first larger machine on which a layout fits: of the same GPUs, else of the smallest GPUs that would do."""
    here, present = machine_of(config), device.total_bytes or 0
    larger = [replace(device, total_bytes=int(gib * GIB), name="") for gib in GPU_GIB if gib * GIB > present]
    for gpu in (device, *larger):
        machines = [*([here] if gpu in larger else []), *larger_machines(config, gpu)]
        for machine in machines:
            for changes in on_machine(config, shape, gpu, machine, share):
                return Found(machine, gpu, changes)
    return None


def on_machine(
    config: RunConfig, shape: ModelShape, device: Device, machine: Machine, share: float
) -> Iterator[Changes]:
    """Settings with which the run fits on a machine, those that cost least time first; one for each layout."""
    free = _free(config, machine)
    hopeless = set()
    for layout, recompute in _ranked(apply(config, free), shape, machine):
        target = {**free, **_layout_changes(config, shape, layout, machine)}
        if layout in hopeless or not _may_fit(apply(config, target), shape, device, layout, share):
            hopeless.add(layout)
        elif (found := _fitting(apply(config, target), shape, device, recompute, share)) is not None:
            hopeless.add(layout)  # it need not be found twice
            yield without_present(config, {**target, **found})


def tried(config: RunConfig, shape: ModelShape, machine: Machine) -> dict[str, list[int]]:
    """Key of the run file -> the sizes that a search goes through on a machine."""
    there = apply(config, _free(config, machine))
    plans = [apply(there, _layout_changes(config, shape, layout, machine)) for layout in layouts(shape, machine)]
    placements = [plan.placement for plan in plans if accepted(plan, shape)]
    names = ("tensor_parallel", "pipeline_parallel", "expert_parallel")
    return {name: sorted({getattr(placement, name) for placement in placements}) for name in names}


def budgets(config: RunConfig) -> list[Changes]:
    """Ever smaller rows; the smallest holds the longest sample."""
    least, present = config.sample_tokens, config.train.max_tokens_per_micro_batch
    largest = (present - 1) // STEP_TOKENS * STEP_TOKENS
    tokens = [*range(largest, least, -STEP_TOKENS), *([least] if least < present else [])]
    return [{TOKENS: count} for count in tokens]


def first_that(ladder: Sequence[Changes], fits: Callable[[Changes], bool]) -> Changes | None:
    """The first that fits of changes of which each needs less memory than the one before."""
    if not ladder or not fits(ladder[-1]):
        return None
    return ladder[bisect_left(ladder, True, key=fits)]


def least_bytes(shape: ModelShape, layout: Layout, *, frozen: bool = False) -> int:
    """What a rank holds at least in an update: its parameters in bfloat16 and their gradients, other things aside.

    Args:
        frozen: some of them, or all, have none.
    """
    experts = parameter_parts(shape)["feed-forward"] if shape.num_experts else 0
    dense = num_parameters(shape) - experts
    held = (dense + experts / layout.expert) / (layout.tensor * layout.pipeline)
    return int(held * (2 if frozen else 2 + FP32_BYTES))


def _ranked(config: RunConfig, shape: ModelShape, machine: Machine) -> list[tuple[Layout, bool]]:
    """Layouts, each with the present recompute and with that of all layers, in the order of what they cost."""
    rows = config.train.global_batch_size * config.sample_tokens // config.train.max_tokens_per_micro_batch
    found = [
        (cost(layout, machine, rows) * (RECOMPUTE_COST if recompute else 1), layout, recompute)
        for layout in layouts(shape, machine)
        for recompute in (False, True)
    ]
    return [(layout, recompute) for _, layout, recompute in sorted(found)]


def _free(config: RunConfig, machine: Machine) -> Changes:
    """The machine, and what costs little time beside what it saves."""
    changes: dict[str, Any] = {"placement.num_nodes": machine.nodes, "placement.trainers_per_node": machine.per_node}
    given_back = {"placement.offload": "auto"}
    if config.placement.offload == "off" and not any(overlap.overlapping_phases(apply(config, given_back))):
        changes |= given_back
    if config.train.optimizer_state == "resident" and not needs_values(config.algorithm):
        changes["train.optimizer_state"] = "auto"
    return changes


def _layout_changes(config: RunConfig, shape: ModelShape, layout: Layout, machine: Machine) -> Changes:
    changes = {
        "placement.tensor_parallel": layout.tensor,
        **pipeline_changes(config, shape, layout.pipeline),
        "placement.expert_parallel": layout.expert,
        "placement.expert_tensor_parallel": 1,
    }
    if layout.tensor != config.placement.tensor_parallel:
        changes["placement.sequence_parallel"] = layout.tensor > 1
    if machine.num_gpus > layout.tensor * layout.pipeline:
        changes["train.use_distributed_optimizer"] = True
    return changes


def _may_fit(config: RunConfig, shape: ModelShape, device: Device, layout: Layout, share: float) -> bool:
    """Whether the checks accept a layout, and its smallest rows fit beside the engine's smallest weights."""
    least = least_bytes(shape, layout, frozen=config.train.lora is not None or not config.train.choice.everything)
    if least > share * (device.total_bytes or 0) or not accepted(config, shape):
        return False
    split = list(engine_splits(config, device))[-1]
    if has_engines(config) and weight_bytes(apply(config, split), shape, "cuda") > share * (device.total_bytes or 0):
        return False
    smallest = apply(config, {**split, **ALL_LAYERS, TOKENS: config.sample_tokens})
    return plan_memory(smallest, shape, device).fits(TRAINING, share)


def _fitting(config: RunConfig, shape: ModelShape, device: Device, recompute: bool, share: float) -> Changes | None:
    """The rest of the settings: rows, recompute, and the engine's share and number of GPUs."""
    rows = [{}, *budgets(config)] if recompute else [{}]
    for split in engine_splits(config, device):
        ladder = [{**split, **(ALL_LAYERS if recompute else {}), **smaller} for smaller in rows]
        found = first_that(ladder, partial(_trains, config, shape, device, share))
        if found is not None and not suits(apply(config, found), shape, device, share):
            found = _with_share(config, shape, device, found)
        if found is not None and suits(apply(config, found), shape, device, share):
            return found
    return None


def _trains(config: RunConfig, shape: ModelShape, device: Device, share: float, changes: Changes) -> bool:
    return plan_memory(apply(config, changes), shape, device).fits(TRAINING, share)


def _with_share(config: RunConfig, shape: ModelShape, device: Device, changes: Changes) -> Changes | None:
    """The changes, and a share of the GPU with which an engine generates."""
    changed = apply(config, changes)
    fraction = fitting_fraction(changed, shape, device, wanted_samples(config)) if has_engines(config) else None
    return None if fraction is None else {**changes, FRACTION: fraction}


def suits(config: RunConfig, shape: ModelShape, device: Device, share: float) -> bool:
    """Whether all of a run fits: every phase, a sample in the engine's cache, and what the host takes in."""
    if not accepted(config, shape):
        return False
    plan = plan_memory(config, shape, device)
    has_room = plan.cache is None or plan.cache.samples(config.sample_tokens) > 0
    return has_room and plan.fits(share=share) and plan.host_bytes <= _host_room(config)


def _host_room(config: RunConfig) -> int:
    asked = asked_memory(config)
    return HOST_PER_GPU * config.placement.trainers_per_node if asked is None else asked
