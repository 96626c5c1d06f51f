"""What will not fit, and what will go slower than it reads: found, wanted, and what to set instead."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from common.memory_size import slurm_memory_bytes
from common.mistake import Mistake
from common.units import GIB
from core.config.schema import RunConfig
from core.planner.engine_room import wanted_samples
from core.planner.memory import GENERATING, TIGHT, TRAINING, MemoryPlan
from core.planner.remedy import engine_remedy, machine_remedy, roomy_remedy, update_remedy
from core.residency.memory import describe, gib
from core.residency.table import TABLE
from modelcfg import ModelShape


def problems(config: RunConfig, shape: ModelShape, plan: MemoryPlan) -> list[Mistake]:
    """What makes a run on GPUs impossible; empty where the plan is a rough one (CPUs)."""
    if plan.device.kind == "cpu":
        return []
    return [*_cache(config, shape, plan), *_phase(config, shape, plan), *_host(config, plan)]


def notices(config: RunConfig, shape: ModelShape, plan: MemoryPlan) -> list[Mistake]:
    """What a run may live with."""
    return [*_tight(config, shape, plan), *_requests(config, shape, plan)]


def _cache(config: RunConfig, shape: ModelShape, plan: MemoryPlan) -> Iterator[Mistake]:
    """The engine's share holds its weights and one sample."""
    longest = config.sample_tokens
    if plan.cache is not None and plan.cache.samples(longest) == 0:
        limit = config.placement.engine_max_total_tokens
        small = limit is not None and limit < longest
        yield Mistake(
            "placement.engine_max_total_tokens" if small else "placement.engine_memory_fraction",
            None,
            f"a KV cache of {plan.cache.tokens} tokens beside the engine's weights",
            f"room for one sample of {longest} tokens",
            f"raise it to {longest} or more" if small else _engine(config, shape, plan),
        )


def _phase(config: RunConfig, shape: ModelShape, plan: MemoryPlan) -> Iterator[Mistake]:
    """Each side's fullest phase; where nobody gives anything back, one phase stands for all."""
    wanted = f"at most the {gib(plan.device.total_bytes or 0)} GiB of a GPU"
    if not plan.fits(TRAINING):
        remedy = update_remedy(config, shape, plan.device)
        yield Mistake("train.max_tokens_per_micro_batch", None, _need(plan, TRAINING), wanted, remedy)
    elif not plan.fits(GENERATING):
        remedy = _engine(config, shape, plan)
        yield Mistake("placement.engine_memory_fraction", None, _need(plan, GENERATING), wanted, remedy)


def _engine(config: RunConfig, shape: ModelShape, plan: MemoryPlan) -> str:
    """An engine of other sizes, or a machine that has room for one."""
    fitting = engine_remedy(config, shape, plan.device, wanted_samples(config))
    return fitting or machine_remedy(config, shape, plan.device)


def _host(config: RunConfig, plan: MemoryPlan) -> Iterator[Mistake]:
    """Refuse trainers whose memory, as asked of Slurm, does not hold what they park on the host."""
    for index, component in enumerate(config.slurm.components):
        asked = slurm_memory_bytes(component.mem) if component.role == "trainers" and component.mem else None
        if asked is None:
            continue
        needed, whose = plan.host_bytes, f"{config.placement.trainers_per_node} trainer ranks park"
        if config.checkpoint.asynchronous == "on" and plan.save_bytes:
            needed, whose = needed + plan.save_bytes, f"{whose}, copies of a checkpoint among them"
        if asked < needed:
            yield Mistake(
                f"slurm.components.{index}.mem",
                None,
                str(component.mem),
                f"room for the {gib(needed)} GiB that {whose}",
                f"ask for more than {-(-needed // GIB)}G, for the processes need some as well",
            )


def _tight(config: RunConfig, shape: ModelShape, plan: MemoryPlan) -> Iterator[Mistake]:
    total = plan.device.total_bytes
    if total is None or plan.fits(share=TIGHT):
        return
    if plan.device.kind == "cpu":
        where, remedy = "this node", "use fewer processes, or a smaller model"
    elif not plan.fits():
        return
    else:
        nothing = "leave it: no other setting for this machine is known to leave more room"
        where, remedy = "a GPU", roomy_remedy(config, shape, plan.device) or nothing
    wanted = f"less than {TIGHT:.0%} of the {gib(total)} GiB of {where}"
    yield Mistake("train.max_tokens_per_micro_batch", None, _need(plan, TABLE), wanted, remedy)


def _requests(config: RunConfig, shape: ModelShape, plan: MemoryPlan) -> Iterator[Mistake]:
    if plan.cache is None:
        return
    wanted, room = wanted_samples(config), plan.cache.samples(config.sample_tokens)
    if 0 < room < wanted:
        raised = engine_remedy(config, shape, plan.device, wanted, wanted) if plan.device.kind == "cuda" else ""
        lowered = f"lower it to {room}, for the rest only waits"
        yield Mistake(
            "placement.engine_max_running_requests",
            None,
            f"{wanted}, and a KV cache of {plan.cache.tokens} tokens",
            f"room for {wanted} samples of {config.sample_tokens} tokens at once; it has room for {room}",
            f"{raised}, or {lowered}" if raised else lowered,
        )


def _need(plan: MemoryPlan, phases: Collection[str]) -> str:
    """85.90 GiB in phase update (trainer: moments 30.00, ... GiB; engine: process 1.55 GiB)"""
    phase = plan.fullest(phases)
    return f"{gib(plan.needed_bytes(phases))} GiB in phase {phase} ({describe(plan.phases[phase])})"
