"""Tensors as a safetensors file that HuggingFace and the engines read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor


def save_tensors(tensors: Iterable[tuple[str, Tensor]], path: Path) -> None:
    """Write tensors under their names, from whatever device they are on.

    Raises:
        Exception: safetensors' own, or an OSError, where there is no room.
    """
    from safetensors.torch import save_file

    on_host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors}
    save_file(on_host, path, {"format": "pt"})
