"""Sizes of memory as people write them: of a node as Slurm spells it, of a GPU with its unit."""

from __future__ import annotations

import re

from common.mistake import Wrong, show
from common.units import GIB, KIB, MIB, TIB

SLURM_UNITS = {"K": KIB, "M": MIB, "": MIB, "G": GIB, "T": TIB}
GPU_UNITS = {"GIB": GIB, "G": GIB, "GB": 10**9, "MIB": MIB, "M": MIB, "MB": 10**6}


def slurm_memory_bytes(text: str) -> int:
    """Bytes of `64G`, `512000M` or `512000` (MiB), as `--mem` takes them: whole numbers, binary units; 0 is 0.

    Raises:
        Wrong: (a ValueError) anything else.
    """
    match = re.fullmatch(r"([0-9]+)([KMGT]?)", text)
    if match is None:
        raise Wrong(show(text), "a whole number with K, M, G or T", 'write for example "64G"')
    return int(match[1]) * SLURM_UNITS[match[2]]


def gpu_memory_bytes(text: str) -> int:
    """Bytes of `80GiB`, `79.1 GiB`, `80GB` or `81559MiB`; a bare G or M is binary, as for Slurm.

    Raises:
        Wrong: (a ValueError) anything else.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)", text.strip())
    factor = GPU_UNITS.get(match[2].upper()) if match else None
    if match is None or factor is None or not float(match[1]):
        raise Wrong(show(text), "a size such as 80GiB", "write a number and GiB, GB or MiB")
    return int(float(match[1]) * factor)
