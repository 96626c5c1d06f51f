"""A memory plan as text for a person: phase by owner by part, what else it needs, and whether it fits. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import modelcfg
from common.units import MIB
from core.checks.parallel import num_trainers, replica_size
from core.config.layout import running_requests
from core.config.schema import RunConfig
from core.planner import Device, MemoryPlan, plan_disk, plan_memory
from core.planner.routing import node_bytes
from core.planner.trainer import waiting_bytes
from core.processes.device import resolve_dtype
from core.residency.memory import gib
from core.residency.table import TABLE, TRAINER_PARTS
from modelcfg import ModelShape
from modelcfg.chosen import num_trained

NOTHING = "–"
OWNER_WIDTH, PART_WIDTH, PHASE_WIDTH, FACT_WIDTH = 9, 15, 9, 10


def render_memory(config: RunConfig, shape: ModelShape, plan: MemoryPlan) -> str:
    """The plan of one run."""
    lines = [*_head(config, shape, plan), "", *_table(plan), "", *_facts(config, shape, plan)]
    return "\n".join(lines) + "\n"


def render_cards(config: RunConfig, shape: ModelShape, devices: Sequence[Device]) -> str:
    """One line for each of some GPUs."""
    return "".join(f"{device.name:<14}{verdict(plan_memory(config, shape, device))}\n" for device in devices)


def verdict(plan: MemoryPlan) -> str:
    """fits: 76.11 of 79.10 GiB in update, the fullest phase"""
    phase, total = plan.fullest(), plan.device.total_bytes
    if total is None:
        return f"{gib(plan.needed_bytes())} GiB in {phase}, the fullest phase"
    no_sample = plan.device.kind == "cuda" and plan.cache is not None and plan.cache.tokens == 0
    word = "does not fit" if not plan.fits() or no_sample else "fits"
    beside = "; the engine's share does not hold its weights" if no_sample else ""
    return f"{word}: {gib(plan.needed_bytes())} of {gib(total)} GiB in {phase}, the fullest phase{beside}"


def _head(config: RunConfig, shape: ModelShape, plan: MemoryPlan) -> Iterator[str]:
    placement, ranks = config.placement, num_trainers(config.placement)
    dtype = resolve_dtype(config.model.dtype, plan.device.kind)
    yield f"{shape.name}: {modelcfg.num_parameters(shape):,} parameters{_of_them(config, shape)}, {dtype}"
    split = f"tensor {placement.tensor_parallel} × pipeline {placement.pipeline_parallel}"
    if placement.context_parallel > 1:
        split += f" × context {placement.context_parallel}"
    replicas = ranks // (replica_size(placement) * placement.context_parallel)
    shared = f", experts over {placement.expert_parallel} of these" if shape.num_experts else ""
    if placement.expert_tensor_parallel > 1:
        shared += f" and each cut over {placement.expert_tensor_parallel}"
    yield f"{ranks} trainer rank{'s' if ranks > 1 else ''}: {split} × data {replicas}{shared}"
    total, name = plan.device.total_bytes, plan.device.name
    known = NOTHING if total is None else f"{gib(total)} GiB"
    each = "each GPU" if plan.device.kind == "cuda" else "host memory of a node"
    yield f"{each}: {known}" + (f" ({name})" if name else "")


def _of_them(config: RunConfig, shape: ModelShape) -> str:
    choice = config.train.choice
    return "" if choice.everything else f", {num_trained(shape, choice):,} of them trained"


def _table(plan: MemoryPlan) -> Iterator[str]:
    yield _row("GiB", "", list(TABLE))
    for owner in plan.phases[next(iter(TABLE))]:
        parts = list(dict.fromkeys(part for phase in TABLE for part in plan.phases[phase][owner]))
        for number, part in enumerate(sorted(parts, key=lambda part: part == "process")):
            sizes = [plan.phases[phase][owner].get(part) for phase in TABLE]
            yield _row(owner if number == 0 else "", part, [NOTHING if size is None else gib(size) for size in sizes])
    yield _row("fuller" if plan.apart else "sum", "", [gib(plan.phase_bytes(phase)) for phase in TABLE])


def _row(owner: str, part: str, cells: Sequence[str]) -> str:
    return f"{owner:<{OWNER_WIDTH}}{part:<{PART_WIDTH}}" + "".join(f"{cell:>{PHASE_WIDTH}}" for cell in cells)


def _facts(config: RunConfig, shape: ModelShape, plan: MemoryPlan) -> Iterator[str]:
    cache, longest, disk = plan.cache, config.sample_tokens, plan_disk(config, shape, plan.device.kind)
    wanted = running_requests(config, plan.device.kind)
    if cache is None:
        yield _fact("engines", "none")
    else:
        yield _fact("KV cache", f"{cache.tokens:,} tokens: {cache.samples(longest):,} samples of {longest:,} at a time")
        yield _fact("", f"(engine_max_running_requests: {wanted})")
    how = "page-locked, " if plan.device.kind == "cuda" else ""
    if plan.staying:
        named = ", ".join(part for part in TRAINER_PARTS if part in plan.staying)
        yield _fact("staying", f"{named}: there is room beside the engine (placement.offload: on makes all leave)")
    if plan.streamed:
        yield _fact("streamed", "masters and moments stay on the host, and pass through the GPU in an update")
    yield _fact("host", f"{gib(plan.host_bytes)} GiB per node, {how}for what trainers {_kept_there(plan)} there")
    if waiting := config.placement.trainers_per_node * waiting_bytes(config, shape, plan.device.kind, plan.stage):
        yield _fact("", f"{gib(waiting)} GiB of it for inputs of recomputed layers (train.recompute_inputs)")
    if replayed := node_bytes(config, shape, cache):
        yield _fact("", f"{gib(replayed)} GiB of it for experts that are replayed (algorithm.routing_replay)")
    if plan.save_bytes and config.checkpoint.asynchronous != "off":
        where = "" if config.checkpoint.asynchronous == "on" else ", where the node has room for them"
        yield _fact("", f"{gib(plan.save_bytes)} GiB more for copies while a checkpoint is written{where}")
    most = f"{disk.checkpoints_kept} kept and one being written"
    yield _fact("disk", f"{gib(disk.checkpoint)} GiB per checkpoint, {most}; model {gib(disk.model)} GiB")
    yield _fact("", f"{disk.step / MIB:.1f} MiB of samples per step at most, before compression")
    yield _fact("verdict", verdict(plan))


def _kept_there(plan: MemoryPlan) -> str:
    return "keep" if plan.streamed else "park"


def _fact(name: str, text: str) -> str:
    return f"{name:<{FACT_WIDTH}}{text}"
