"""Who holds which bytes of a GPU in which phase: a table, the machine that enforces it, the moving of bytes.

Nothing here knows Megatron or SGLang; `core.megatron.parking` and `core.residency.engines` are the two owners. The
table comes without torch, for the planner; what needs torch is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from core.residency.table import ENGINE, ENGINE_PARTS, TABLE, TRAINER, TRAINER_PARTS, Holding

if TYPE_CHECKING:
    from core.residency.machine import Owner, Residency, ResidencyError
    from core.residency.region import Region

__all__ = [
    "ENGINE",
    "ENGINE_PARTS",
    "TABLE",
    "TRAINER",
    "TRAINER_PARTS",
    "Holding",
    "Owner",
    "Region",
    "Residency",
    "ResidencyError",
]

_WITH_TORCH = {"Owner": "machine", "Residency": "machine", "ResidencyError": "machine", "Region": "region"}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
