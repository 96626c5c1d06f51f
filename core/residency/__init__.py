"""Who holds which bytes of a GPU in which phase: a table, the machine that enforces it, the moving of bytes.

Nothing here knows Megatron or SGLang; `core.megatron.parking` and `core.residency.engines` are the two owners. The
table comes with the package, without torch, for the planner; `machine` and `region` are imported by their names.
"""

from __future__ import annotations

from core.residency.table import ENGINE, ENGINE_PARTS, EVERYTHING, TABLE, TRAINER, TRAINER_PARTS, Holding, table

__all__ = ["ENGINE", "ENGINE_PARTS", "EVERYTHING", "TABLE", "TRAINER", "TRAINER_PARTS", "Holding", "table"]
