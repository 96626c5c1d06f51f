"""What a run will need of its GPUs, hosts and disks, from run file and shape alone: before anything is submitted.

The residency table says who holds what in which phase; this package says how many bytes that is, and whether they fit.
Pure, and without torch: a login node can plan. How near the figures come: docs/plan.md.
"""

from __future__ import annotations

from core.planner.changes import size_problems
from core.planner.decisions import plan_memory, streams, takes_turns
from core.planner.disk import plan_disk
from core.planner.fit import notices, problems
from core.planner.memory import Device, MemoryPlan
from core.planner.saves import host_shortage, saves_apart

__all__ = [
    "Device",
    "MemoryPlan",
    "host_shortage",
    "notices",
    "plan_disk",
    "plan_memory",
    "problems",
    "saves_apart",
    "size_problems",
    "streams",
    "takes_turns",
]
