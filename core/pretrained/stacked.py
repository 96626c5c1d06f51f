"""Experts that lie in one tensor of a file, one after the other: told apart from headers alone."""

from __future__ import annotations

from collections.abc import Mapping

from core.pretrained.header import StoredTensor
from core.pretrained.quantised import QuantisedWeight
from modelcfg import ModelShape, stacks


def experts_apart(
    tensors: Mapping[str, StoredTensor | QuantisedWeight], shape: ModelShape
) -> dict[str, StoredTensor | QuantisedWeight]:
    """The tensors of a directory with each expert's by itself; one of another shape than the model's stays as it is."""
    found = dict(tensors)
    for name, stack in stacks(shape).items():
        one = found.get(name)
        if not isinstance(one, StoredTensor) or one.shape != stack.shape:
            continue
        del found[name]
        start, row_bytes = one.start, one.num_bytes // (stack.shape[0] * stack.shape[1])
        for part, size in stack.parts:
            found[part] = StoredTensor(one.file, one.dtype, size, start, size[0] * row_bytes)
            start += size[0] * row_bytes
    return found
