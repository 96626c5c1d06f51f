"""What the trainer's entries ask of a model's files, put together from its parts."""

from __future__ import annotations

from core.megatron.state.names import export_entries
from modelcfg import ModelShape
from modelcfg.weights import part_of


def loaded_tensors(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, each asked for once; experts' parts of one have to come in their order."""
    found: dict[str, tuple[int, ...]] = {}
    for entry in export_entries(shape):
        for name, size in zip(entry.hf, entry.shapes, strict=True):
            whole, expert = part_of(name)
            so_far = found.get(whole, (0,))[0]
            assert so_far == (expert or 0), f"{name} behind {so_far}"
            found[whole] = size if expert is None else (expert + 1, *size)
    return found
