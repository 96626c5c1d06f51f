"""Who holds which bytes of a GPU in which phase: a table, the machine that enforces it, the moving of bytes.

The two owners are `core.megatron.state.parking` and, through SGLang's memory saver, `engines`; the rest knows neither
Megatron nor SGLang. The table comes with the package, without torch, for the planner; the other files are imported by
their names.
"""

from __future__ import annotations

from core.residency.table import ENGINE, ENGINE_PARTS, EVERYTHING, TABLE, TRAINER, TRAINER_PARTS, Holding, table

__all__ = ["ENGINE", "ENGINE_PARTS", "EVERYTHING", "TABLE", "TRAINER", "TRAINER_PARTS", "Holding", "table"]
