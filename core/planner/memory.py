"""Phase x owner x part x bytes of one device: the residency table, with sizes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from core.megatron.sizes.graphs import Graphs
from core.planner.engine import KvCache
from core.residency.table import ENGINE_PARTS, TABLE, TRAINER, TRAINER_PARTS

# parts of these names, in every phase; drafts: what the graphs of an engine with speculative decoding read
PROCESS, GRAPHS, DRAFTS = "process", "row graphs", "drafts"
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
        per_node: GPUs of a node; None: not known.
    """

    kind: Literal["cuda", "cpu"]
    total_bytes: int | None
    name: str = ""
    capability: float | None = None
    per_node: int | None = None


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
        save_bytes: what the copies of a checkpoint take there while it is written, where the run goes on meanwhile.
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
    save_bytes: int

    def phase_bytes(self, phase: str) -> int:
        """Bytes of one device in a phase; where owners have a device each, of the fuller one."""
        owners = [sum(parts.values()) for parts in self.phases[phase].values()]
        return max(owners) if self.apart else sum(owners)

    def trainers_bytes(self, phase: str) -> tuple[int, int]:
        """Bytes of a trainer's device: when the phase begins, before the phase takes its own, and at its fullest."""
        owners = self.phases[phase]
        there = [owners[TRAINER]] if self.apart else list(owners.values())
        sizes = [item for parts in there for item in parts.items()]
        kept = (*TRAINER_PARTS, *ENGINE_PARTS, GRAPHS, DRAFTS, PROCESS)
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
