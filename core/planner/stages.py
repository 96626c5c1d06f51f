"""The plans of pipeline stages, once it is decided what stays and what streams: the bytes of each phase added up."""

from __future__ import annotations

from dataclasses import dataclass

from common.units import GIB
from core.config.schema import RunConfig
from core.megatron.sizes.graphs import Graphs
from core.planner import engine, routing, trainer
from core.planner.memory import DRAFTS, GENERATING, GRAPHS, PROCESS, Device, MemoryPlan, Parts
from core.planner.saves import save_bytes
from core.residency.table import ENGINE, TABLE, TRAINER, table
from modelcfg import ModelShape

# What a process takes beside the parts, in every phase. GPU: measured on an H100 with nothing left of the parts (bench/
# results/park.json and orchestration.json), CUDA contexts included. CPU: resident memory of the loaded libraries.
BESIDE = {
    "cuda": {TRAINER: round(1.0 * GIB), ENGINE: round(1.55 * GIB)},
    "cpu": {TRAINER: round(1.0 * GIB), ENGINE: round(1.5 * GIB)},
}
COMMUNICATOR = round(0.4 * GIB)  # of NCCL, each; measured with one rank in it, those of several may take more
STAGING = "state, passing"  # what an update has of a streamed state on the device


@dataclass(frozen=True)
class How:
    """What is decided before phases are added up: see `MemoryPlan`."""

    in_turns: bool
    graphs: Graphs | None = None
    staying: frozenset[str] = frozenset()
    streamed: bool = False


def stage_plans(config: RunConfig, shape: ModelShape, device: Device, how: How) -> list[MemoryPlan]:
    """Plans of the pipeline stages. Those between the first and the last hold the same, unless some of their layers are
    frozen; the first has most rows.
    """
    number = config.placement.pipeline_parallel
    different = {0, min(1, number - 1), number - 1} if config.train.choice.everything else range(number)
    return [stage_plan(config, shape, device, how, stage) for stage in sorted(different)]


def fullest_stage(config: RunConfig, shape: ModelShape, device: Device, how: How) -> MemoryPlan:
    """The plan of the pipeline stage that needs most."""
    return max(stage_plans(config, shape, device, how), key=lambda plan: plan.needed_bytes())


def stage_plan(config: RunConfig, shape: ModelShape, device: Device, how: How, stage: int) -> MemoryPlan:
    """The plan of one pipeline stage."""
    kind, granted = device.kind, table(how.staying)
    cache = engine.cache(config, shape, kind, device.total_bytes or 0) if has_engines(config) else None
    trains = has_trainers(config)
    trainer_parts = trainer.part_bytes(config, shape, kind, stage, streamed=how.streamed) if trains else {}
    streamed = trainer.streamed_bytes(config, shape, kind, stage) if how.streamed else trainer.Streamed(0, 0)
    sizes = {TRAINER: trainer_parts}
    if cache is not None:
        sizes[ENGINE] = engine.part_bytes(config, shape, kind, cache)
    lasting, counts = _lasting(config, shape, kind, how.graphs), _counts(config, kind)
    phases: dict[str, dict[str, Parts]] = {}
    for phase in TABLE:
        work = _work(config, shape, kind, stage, phase, streamed.staging)
        phases[phase] = {}
        for owner in sizes:
            held = _held(sizes[owner], granted[phase].of(owner) if how.in_turns else None)
            parts = {**held, **work.get(owner, {}), **lasting[owner]}
            phases[phase][owner] = {part: size * counts[owner] for part, size in parts.items()}
    copies = streamed.host + (trainer.waiting_bytes(config, shape, kind, stage) if trains else 0)
    if how.in_turns:
        copies += trainer.host_copy_bytes(config, shape, kind, trainer_parts, how.staying, how.streamed)
    parked = engine.parked_bytes(config, kind) if how.in_turns and kind == "cuda" else 0
    replayed = routing.node_bytes(config, shape, cache) if trains else 0
    return MemoryPlan(
        device=device,
        in_turns=how.in_turns,
        streamed=how.streamed,
        staying=how.staying,
        graphs=how.graphs,
        apart=kind == "cuda" and config.placement.engines == "own_gpus",
        phases=phases,
        stage=stage,
        cache=cache,
        host_bytes=copies * config.placement.trainers_per_node + replayed + parked,
        save_bytes=save_bytes(config, shape, kind) if trains else 0,
    )


def colocated(config: RunConfig) -> bool:
    """Whether engines are on the trainers' devices."""
    return config.placement.engines == "colocated"


def has_trainers(config: RunConfig) -> bool:
    """Whether ranks have the model at all."""
    return config.placement.trainers != "none"


def has_engines(config: RunConfig) -> bool:
    """Whether there are engines at all."""
    return config.placement.engines != "none"


def _held(sizes: Parts, granted: frozenset[str] | None) -> Parts:
    """The parts that are there; all of them where nobody gives anything back."""
    return {name: size for name, size in sizes.items() if size and (granted is None or name in granted)}


def _lasting(config: RunConfig, shape: ModelShape, device: str, graphs: Graphs | None) -> dict[str, Parts]:
    """Owner -> what is on the device in every phase: its process, with NCCL's communicators, and what graphs keep."""
    communicators = trainer.num_communicators(config) if device == "cuda" and has_trainers(config) else 0
    of_trainer = {GRAPHS: trainer.graph_work(config, shape, device, graphs)} if graphs else {}
    of_trainer[PROCESS] = BESIDE[device][TRAINER] + communicators * COMMUNICATOR
    of_engine = {DRAFTS: drafts} if (drafts := engine.draft_bytes(config, shape, device)) else {}
    return {TRAINER: of_trainer, ENGINE: {**of_engine, PROCESS: BESIDE[device][ENGINE]}}


def _work(config: RunConfig, shape: ModelShape, device: str, stage: int, phase: str, staging: int) -> dict[str, Parts]:
    """Owner -> what a phase takes and gives back itself. A state passes when the rows are done: not both at a time."""
    if phase in ("update", "sync") and not has_trainers(config):
        return {}
    if phase == "update":
        work = trainer.update_work(config, shape, device, stage)
        if experts := routing.row_bytes(config, shape):
            work = {**work, "experts of tokens": experts}
        more = max(0, staging - sum(work.values()))
        return {TRAINER: work | ({STAGING: more} if more else {})}
    if phase == "sync" and has_engines(config):
        buckets = engine.bucket_bytes(config, shape, device) + trainer.merging_bytes(config)
        return {TRAINER: {"buckets": buckets}}
    if phase in GENERATING:
        return {ENGINE: {"forward pass": engine.forward_bytes(config, shape, device)}}
    return {}


def _counts(config: RunConfig, device: str) -> dict[str, int]:
    """How many of each owner are on the device: one on a GPU, all of the node's on a CPU."""
    if device == "cuda":
        return {TRAINER: 1, ENGINE: 1}
    return {TRAINER: config.placement.trainers_per_node, ENGINE: config.placement.engines_per_node}
