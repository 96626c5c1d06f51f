"""Attention whose result is gated: by the sigmoid of numbers that come with the queries (Qwen3-Next).

Legend: T row tokens, n query heads and g key-value heads of this tensor-parallel rank, d head dim.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer.attention import SelfAttention
from torch import Tensor


class GatedAttention(SelfAttention):  # type: ignore[misc]
    """Megatron's self-attention with its output gate, which it would have group by group, not head by head."""

    def get_query_key_value_tensors(
        self, hidden_states: Tensor, *_: Any, **_options: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[T, 1, n, d] queries, [T, 1, g, d] keys and values, and [T, 1, n, d] gates."""
        mixed, _bias = self.linear_qkv(hidden_states)
        d, groups = self.hidden_size_per_attention_head, self.num_query_groups_per_partition
        grouped = mixed.view(*mixed.shape[:2], groups, -1)
        both, key, value = torch.split(grouped, [grouped.shape[-1] - 2 * d, d, d], -1)
        query, gate = both.reshape(*mixed.shape[:2], -1, 2 * d).chunk(2, -1)
        return self.q_layernorm(query), self.k_layernorm(key), value, gate
