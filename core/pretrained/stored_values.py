"""The numbers of a stored tensor, read from their place in the file."""

from __future__ import annotations

import torch
from torch import Tensor

from core.pretrained.header import StoredTensor
from core.pretrained.quantised import QuantisedWeight

TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
}


def stored_values(tensor: StoredTensor, rows: range | None = None) -> Tensor:
    """A tensor of a file as it lies there, or some of its rows, which alone are read."""
    rows = range(tensor.shape[0]) if rows is None else rows
    content = tensor.read(rows)
    return torch.frombuffer(content, dtype=TORCH[tensor.dtype]).view(len(rows), *tensor.shape[1:])


def whole_values(tensor: StoredTensor | QuantisedWeight) -> Tensor:
    """A tensor of a model, a quantised one as what it stands for, in float32."""
    return tensor.values() if isinstance(tensor, QuantisedWeight) else stored_values(tensor)
