"""What is decided before the bytes are added up: who gives memory back, what stays, what streams, what is a graph."""

from __future__ import annotations

from dataclasses import replace

from core.checks.needs import needs_values
from core.config.schema import RunConfig
from core.megatron.sizes.graphs import Graphs
from core.planner import engine, trainer
from core.planner.memory import OTHERS, TIGHT, TRAINING, Device, MemoryPlan
from core.planner.stages import How, colocated, fullest_stage, has_trainers, stage_plan, stage_plans
from core.residency.table import TRAINER
from modelcfg import ModelShape


def plan_memory(
    config: RunConfig,
    shape: ModelShape,
    device: Device,
    *,
    stage: int | None = None,
    in_turns: bool | None = None,
) -> MemoryPlan:
    """The plan of a run.

    Args:
        config: sizes that divide, as `check_run` wants them.
        device: a GPU's memory has to be known, for the engine takes a share of it.
        stage: of the pipeline; None: the one that needs most.
        in_turns: what all ranks have agreed on; None: what `takes_turns` says.
    """
    if in_turns is None:
        in_turns = takes_turns(config, shape, device)
    how = How(in_turns, streamed=streams(config, shape, device, in_turns))
    if in_turns:
        how = replace(how, staying=_staying(config, shape, device, how))
    elif has_trainers(config):
        how = replace(how, graphs=_graphs(config, shape, device, how))
    return fullest_stage(config, shape, device, how) if stage is None else stage_plan(config, shape, device, how, stage)


def takes_turns(config: RunConfig, shape: ModelShape, device: Device) -> bool:
    """Whether trainer ranks and engines of a node give memory back to each other.

    With `offload: auto` they do on GPUs that do not hold everything at once, or of which that is not known.
    """
    wanted = config.placement.offload if has_trainers(config) else "off"
    if not colocated(config) or wanted != "auto":
        return colocated(config) and wanted == "on"
    if device.kind == "cpu" or device.total_bytes is None:
        return device.kind == "cuda"
    how = How(False, streamed=config.train.optimizer_state == "streamed")
    return not fullest_stage(config, shape, device, how).fits(share=TIGHT)


def streams(config: RunConfig, shape: ModelShape, device: Device, in_turns: bool) -> bool:
    """Whether masters and moments stay on the host. With `optimizer_state: auto`, on GPUs without room for them.

    Never beside a critic (`checks/critic.py`).
    """
    if needs_values(config.algorithm):
        return False
    wanted = config.train.optimizer_state if has_trainers(config) else "resident"
    if wanted != "auto" or device.kind == "cpu" or device.total_bytes is None:
        return wanted == "streamed"
    return not fullest_stage(config, shape, device, How(in_turns)).fits(TRAINING, TIGHT)


def _graphs(config: RunConfig, shape: ModelShape, device: Device, how: How) -> Graphs | None:
    """The graphs that fit beside everything else: they only save time, so nothing is given up for them."""
    possible = [] if device.total_bytes is None else trainer.possible_graphs(config, shape, device.kind)
    plans = ((graphs, fullest_stage(config, shape, device, replace(how, graphs=graphs))) for graphs in possible)
    return next((graphs for graphs, plan in plans if plan.fits(share=TIGHT)), None)


def _staying(config: RunConfig, shape: ModelShape, device: Device, how: How) -> frozenset[str]:
    """Parts of a trainer for which there is room in all phases but its own. With `offload: on` all leave.

    An engine that has to start again takes its share of what is free then; it is to have at least half of its cache.
    """
    stay: frozenset[str] = frozenset()
    if config.placement.offload != "auto" or device.total_bytes is None:
        return stay
    sizes = trainer.part_bytes(config, shape, device.kind, streamed=how.streamed)
    for part in filter(sizes.get, trainer.copied_parts(config, shape, device.kind, how.streamed)):
        plans = stage_plans(config, shape, device, replace(how, staying=stay | {part}))
        free = device.total_bytes - max(sum(plan.phases["score"][TRAINER].values()) for plan in plans)
        again = engine.cache(config, shape, device.kind, max(0, free))
        before = plans[0].cache
        assert before is not None  # who takes turns has an engine
        if 2 * again.tokens >= before.tokens and all(plan.fits(OTHERS, share=TIGHT) for plan in plans):
            stay |= {part}
    return stay
