"""Rows padded to one of few sizes, at addresses that stay: what a CUDA graph wants, which repeats what it once saw.

What is added changes nothing that counts: padding tokens are segments of their own and predict nothing, padding
targets get no gradient, further segments are empty, and keys behind the last segment's are read by nobody.
Legend: T tokens, R targets, S segments, K keys of all segments of a row; in a `FixedRow` the padded numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.megatron.attention.copies import Copies
from core.megatron.attention.plan import AttentionPlan, Ragged, key_counts, ragged_keys
from core.megatron.model import RowParams
from core.megatron.rows.packing import Row, Segment
from core.megatron.rows.to_device import to_device
from core.megatron.sizes.graphs import FixedSize, size_for


def fixed_size(row: Row, most_tokens: int) -> FixedSize | None:
    """The size that holds the row; None: it is too large, or empty."""
    if not len(row.targets):
        return None
    shared = any(segment.prefix_length for segment in row.segments)
    return size_for(len(row.tokens), len(row.targets), key_counts(row.segments), shared, most_tokens)


class FixedRow:
    """Room on the device for one row at a time of a size."""

    def __init__(self, size: FixedSize, device: str) -> None:
        self.size, self.device = size, device
        self._lengths = {
            "tokens": size.tokens,
            "positions": size.tokens,
            "logit_index": size.tokens,
            "targets": size.tokens,
            "cu_queries": size.segments + 1,
            "cu_keys": size.segments + 1,
            "keys": size.keys,
            "first_key": size.tokens + 1 if size.keys else 0,
        }
        self._buffer = torch.zeros(sum(self._lengths.values()), dtype=torch.int64, device=device)
        parts = torch.split(self._buffer, list(self._lengths.values()))
        self._views: dict[str, Tensor] = dict(zip(self._lengths, parts, strict=True))

    @property
    def tokens(self) -> Tensor:
        """[T]"""
        return self._views["tokens"]

    def fill(self, row: Row) -> None:
        """Bring a row here: one copy, for which the host does not wait."""
        values = padded(row, self.size)
        together = np.concatenate([values[name] for name in self._lengths])
        self._buffer.copy_(to_device(torch.from_numpy(together), self.device))

    def params(self) -> RowParams:
        """The argument of the layers; it is computed on the device, and a capture records that."""
        views = self._views
        keys = views["keys"]
        ragged = Ragged(
            cu_queries=views["cu_queries"].int(),
            cu_keys=views["cu_keys"].int(),
            keys=Copies(keys, keys.argsort(stable=True), views["first_key"]),
            max_queries=self.size.longest,
            max_keys=self.size.longest,
        )
        return RowParams(
            qkv_format="sbhd",
            positions=views["positions"],
            attention=_FixedPlan(ragged, is_plain=not self.size.keys),
            logit_index=views["logit_index"],
            targets=views["targets"],
        )


class _FixedPlan(AttentionPlan):
    """A plan whose tensors are there already; for the kernel that takes ragged sequences."""

    whole = None

    def __init__(self, ragged: Ragged, is_plain: bool) -> None:
        self.ragged, self.is_plain = ragged, is_plain


def padded(row: Row, size: FixedSize) -> dict[str, NDArray[np.int64]]:
    """The row's columns and its attention's, as long as a `FixedRow` holds them."""
    behind = range(len(row.tokens), size.tokens, size.longest)
    segments = [*row.segments, *(Segment(start, min(size.longest, size.tokens - start)) for start in behind)]
    counts = key_counts(segments)
    result = {
        "tokens": _fill(row.tokens.numpy(), size.tokens),
        "positions": _fill(row.positions.numpy(), size.tokens),
        # padding targets are predicted from as many different tokens, lest their (zero) gradients queue for one
        "logit_index": np.concatenate([row.logit_index.numpy(), np.arange(len(row.targets), size.tokens)]),
        "targets": _fill(row.targets.numpy(), size.tokens),
        "cu_queries": _cumulative([s.length for s in segments], size.segments),
        "cu_keys": _cumulative(counts, size.segments),
        "keys": np.zeros(0, np.int64),
        "first_key": np.zeros(0, np.int64),
    }
    if size.keys:
        keys = ragged_keys(segments).numpy()
        # the last token's number, so that a stable sort puts them behind all that count
        result["keys"] = np.concatenate([keys, np.full(size.keys - len(keys), size.tokens - 1)])
        result["first_key"] = _cumulative(np.bincount(keys, minlength=size.tokens), size.tokens)
    return result


def _fill(values: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    return np.concatenate([values, np.zeros(length - len(values), np.int64)])


def _cumulative(counts: NDArray[np.int64] | list[int], number: int) -> NDArray[np.int64]:
    """[number + 1] sums of the counts before each; what is beyond them has none."""
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return np.concatenate([sums, np.full(number + 1 - len(sums), sums[-1])])
