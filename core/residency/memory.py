"""What a GPU's memory holds now, and a sentence about who ran out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.units import GIB


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes of one device: used by everybody, reserved and in use by this process's allocator. All 0 on a CPU."""

    total: int = 0
    used: int = 0
    own_reserved: int = 0
    own_allocated: int = 0


def read_memory(device: str) -> DeviceMemory:
    """The reading of this moment. No synchronisation: freeing and allocating happen on the host."""
    if device != "cuda":
        return DeviceMemory()
    import torch  # here: the planner shows bytes where there is none

    free, total = torch.cuda.mem_get_info()
    return DeviceMemory(total, total - free, torch.cuda.memory_reserved(), torch.cuda.memory_allocated())


def total_memory(device: str) -> int | None:
    """Bytes of the GPU, None for a CPU; makes no context, which would take memory itself."""
    if device != "cuda":
        return None
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)


def gib(num_bytes: float) -> str:
    """1.25 for 1.25 GiB."""
    return f"{num_bytes / GIB:.2f}"


def describe(holdings: Mapping[str, Mapping[str, int]]) -> str:
    """trainer: parameters 7.49, moments 29.96 GiB; engine: nothing"""
    return "; ".join(f"{owner}: {_parts(parts)}" for owner, parts in holdings.items())


def _parts(parts: Mapping[str, int]) -> str:
    if not parts:
        return "nothing"
    shown = [f"{name} {gib(size)}" if size else f"{name} (size not known)" for name, size in parts.items()]
    return ", ".join(shown) + (" GiB" if any(parts.values()) else "")
