"""Phase x owner x part x bytes of one device: the residency table, with sizes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from common.units import GIB
from core.config.schema import RunConfig
from core.megatron.sizes.graphs import Graphs
from core.planner import engine, trainer
from core.planner.engine import KvCache
from core.residency.table import ENGINE, ENGINE_PARTS, TABLE, TRAINER, TRAINER_PARTS, table
from modelcfg import ModelShape

# What a process takes beside the parts, in every phase. GPU: measured on an H100 with nothing left of the parts (bench/
# results/park.json and orchestration.json), CUDA contexts included. CPU: resident memory of the loaded libraries.
BESIDE = {
    "cuda": {TRAINER: round(1.0 * GIB), ENGINE: round(1.55 * GIB)},
    "cpu": {TRAINER: round(1.0 * GIB), ENGINE: round(1.5 * GIB)},
}
COMMUNICATOR = round(0.4 * GIB)  # of NCCL, each; measured with one rank in it, those of several may take more
PROCESS, GRAPHS = "process", "row graphs"  # parts of these names, in every phase
STAGING = "state, passing"  # what an update has of a streamed state on the device
TIGHT = 0.95  # of the device: beyond it, fragments of freed memory may be missing
GENERATING = ("rollout", "eval")
TRAINING = tuple(phase for phase in TABLE if phase not in GENERATING)
OTHERS = tuple(phase for phase in TABLE if "moments" not in TABLE[phase].trainer)  # phases of others than the trainer

Parts = Mapping[str, int]


@dataclass(frozen=True)
class Device:
    """What the plan is for: each GPU, or on CPUs the host memory of a node.

    Attributes:
        total_bytes: None: not known.
        capability: of a GPU, NVIDIA's compute capability; None: not known.
    """

    kind: Literal["cuda", "cpu"]
    total_bytes: int | None
    name: str = ""
    capability: float | None = None


@dataclass(frozen=True)
class MemoryPlan:
    """One device of a run: a GPU with its trainer rank and its share of an engine, or the CPU side of a whole node.

    Attributes:
        in_turns: whether trainer and engine give memory back to each other.
        streamed: whether masters and moments stay on the host, and pass through the device in an update.
        staying: parts of the trainer that have room beside the engine and never leave.
        graphs: which rows the trainer computes as CUDA graphs, if any.
        apart: whether trainer and engine have a GPU each.
        phases: phase -> owner -> part -> bytes; what is there when the phase is fullest.
        stage: the pipeline stage that needs most.
        cache: of one engine; None: there is none.
        host_bytes: memory of a node that takes parts in while they are not on the device, page-locked on GPUs.
    """

    device: Device
    in_turns: bool
    streamed: bool
    staying: frozenset[str]
    graphs: Graphs | None
    apart: bool
    phases: Mapping[str, Mapping[str, Parts]]
    stage: int
    cache: KvCache | None
    host_bytes: int

    def phase_bytes(self, phase: str) -> int:
        """Bytes of one device in a phase; where owners have a device each, of the fuller one."""
        owners = [sum(parts.values()) for parts in self.phases[phase].values()]
        return max(owners) if self.apart else sum(owners)

    def trainers_bytes(self, phase: str) -> tuple[int, int]:
        """Bytes of a trainer's device: when the phase begins, before the phase takes its own, and at its fullest."""
        owners = self.phases[phase]
        there = [owners[TRAINER]] if self.apart else list(owners.values())
        sizes = [item for parts in there for item in parts.items()]
        kept = (*TRAINER_PARTS, *ENGINE_PARTS, GRAPHS, PROCESS)
        return sum(size for name, size in sizes if name in kept), sum(size for _, size in sizes)

    def fullest(self, phases: Collection[str] = tuple(TABLE)) -> str:
        """The one of these phases that needs most."""
        return max(phases, key=self.phase_bytes)

    def needed_bytes(self, phases: Collection[str] = tuple(TABLE)) -> int:
        """Bytes of the device when it is fullest; on a CPU with the copies of what is not on the device."""
        return self.phase_bytes(self.fullest(phases)) + (self.host_bytes if self.device.kind == "cpu" else 0)

    def fits(self, phases: Collection[str] = tuple(TABLE), share: float = 1.0) -> bool:
        """Whether a share of the device is enough for some phases."""
        return self.device.total_bytes is None or self.needed_bytes(phases) <= share * self.device.total_bytes


@dataclass(frozen=True)
class _How:
    """What is decided before phases are added up: see `MemoryPlan`."""

    in_turns: bool
    graphs: Graphs | None = None
    staying: frozenset[str] = frozenset()
    streamed: bool = False


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
    how = _How(in_turns, streamed=streams(config, shape, device, in_turns))
    if in_turns:
        how = replace(how, staying=_staying(config, shape, device, how))
    else:
        how = replace(how, graphs=_graphs(config, shape, device, how))
    return _fullest(config, shape, device, how) if stage is None else _plan(config, shape, device, how, stage)


def takes_turns(config: RunConfig, shape: ModelShape, device: Device) -> bool:
    """Whether trainer ranks and engines of a node give memory back to each other.

    With `offload: auto` they do on GPUs that do not hold everything at once, or of which that is not known.
    """
    wanted = config.placement.offload
    if not colocated(config) or wanted != "auto":
        return colocated(config) and wanted == "on"
    if device.kind == "cpu" or device.total_bytes is None:
        return device.kind == "cuda"
    how = _How(False, streamed=config.train.optimizer_state == "streamed")
    return not _fullest(config, shape, device, how).fits(share=TIGHT)


def streams(config: RunConfig, shape: ModelShape, device: Device, in_turns: bool) -> bool:
    """Whether masters and moments stay on the host. With `optimizer_state: auto`, on GPUs without room for them."""
    wanted = config.train.optimizer_state
    if wanted != "auto" or device.kind == "cpu" or device.total_bytes is None:
        return wanted == "streamed"
    return not _fullest(config, shape, device, _How(in_turns)).fits(TRAINING, TIGHT)


def _graphs(config: RunConfig, shape: ModelShape, device: Device, how: _How) -> Graphs | None:
    """The graphs that fit beside everything else: they only save time, so nothing is given up for them."""
    possible = [] if device.total_bytes is None else trainer.possible_graphs(config, shape, device.kind)
    plans = ((graphs, _fullest(config, shape, device, replace(how, graphs=graphs))) for graphs in possible)
    return next((graphs for graphs, plan in plans if plan.fits(share=TIGHT)), None)


def _staying(config: RunConfig, shape: ModelShape, device: Device, how: _How) -> frozenset[str]:
    """Parts of a trainer for which there is room in all phases but its own. With `offload: on` all leave.

    An engine that has to start again takes its share of what is free then; it is to have at least half of its cache.
    """
    stay: frozenset[str] = frozenset()
    if config.placement.offload != "auto" or device.total_bytes is None:
        return stay
    sizes = trainer.part_bytes(config, shape, device.kind, streamed=how.streamed)
    for part in filter(sizes.get, trainer.copied_parts(config, shape, device.kind, how.streamed)):
        plans = _plans(config, shape, device, replace(how, staying=stay | {part}))
        free = device.total_bytes - max(sum(plan.phases["score"][TRAINER].values()) for plan in plans)
        again = engine.cache(config, shape, device.kind, max(0, free))
        before = plans[0].cache
        assert before is not None  # who takes turns has an engine
        if 2 * again.tokens >= before.tokens and all(plan.fits(OTHERS, share=TIGHT) for plan in plans):
            stay |= {part}
    return stay


def colocated(config: RunConfig) -> bool:
    """Whether engines are on the trainers' devices."""
    return config.placement.engines == "colocated"


def has_engines(config: RunConfig) -> bool:
    """Whether there are engines at all."""
    return config.placement.engines != "none"


def _plans(config: RunConfig, shape: ModelShape, device: Device, how: _How) -> list[MemoryPlan]:
    """Plans of the pipeline stages, one each."""
    return [_plan(config, shape, device, how, stage) for stage in range(config.placement.pipeline_parallel)]


def _fullest(config: RunConfig, shape: ModelShape, device: Device, how: _How) -> MemoryPlan:
    """The plan of the pipeline stage that needs most."""
    return max(_plans(config, shape, device, how), key=lambda plan: plan.needed_bytes())


def _plan(config: RunConfig, shape: ModelShape, device: Device, how: _How, stage: int) -> MemoryPlan:
    """The plan of one pipeline stage."""
    kind, granted = device.kind, table(how.staying)
    cache = engine.cache(config, shape, kind, device.total_bytes or 0) if has_engines(config) else None
    trainer_parts = trainer.part_bytes(config, shape, kind, stage, streamed=how.streamed)
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
    copies = streamed.host
    if how.in_turns:
        copies += trainer.host_copy_bytes(config, shape, kind, trainer_parts, how.staying, how.streamed)
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
        host_bytes=copies * config.placement.trainers_per_node,
    )


def _held(sizes: Parts, granted: frozenset[str] | None) -> Parts:
    """The parts that are there; all of them where nobody gives anything back."""
    return {name: size for name, size in sizes.items() if size and (granted is None or name in granted)}


def _lasting(config: RunConfig, shape: ModelShape, device: str, graphs: Graphs | None) -> dict[str, Parts]:
    """Owner -> what is on the device in every phase: its process, with NCCL's communicators, and the graphs of rows."""
    communicators = trainer.num_communicators(config) if device == "cuda" else 0
    of_trainer = {GRAPHS: trainer.graph_work(config, shape, device, graphs)} if graphs else {}
    of_trainer[PROCESS] = BESIDE[device][TRAINER] + communicators * COMMUNICATOR
    return {TRAINER: of_trainer, ENGINE: {PROCESS: BESIDE[device][ENGINE]}}


def _work(config: RunConfig, shape: ModelShape, device: str, stage: int, phase: str, staging: int) -> dict[str, Parts]:
    """Owner -> what a phase takes and gives back itself. A state passes when the rows are done: not both at a time."""
    if phase == "update":
        work = trainer.update_work(config, shape, device, stage)
        more = max(0, staging - sum(work.values()))
        return {TRAINER: work | ({STAGING: more} if more else {})}
    if phase == "sync" and has_engines(config):
        return {TRAINER: {"buckets": engine.bucket_bytes(config, shape, device)}}
    if phase in GENERATING:
        return {ENGINE: {"forward pass": engine.forward_bytes(config, shape, device)}}
    return {}


def _counts(config: RunConfig, device: str) -> dict[str, int]:
    """How many of each owner are on the device: one on a GPU, all of the node's on a CPU."""
    if device == "cuda":
        return {TRAINER: 1, ENGINE: 1}
    return {TRAINER: config.placement.trainers_per_node, ENGINE: config.placement.engines_per_node}
