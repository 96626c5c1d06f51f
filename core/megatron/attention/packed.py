"""Attention over a packed row, in the place of Megatron's core attention.

A layer may see a window of tokens alone, and have sinks: a number for each head that stands beside the logits of its
keys, takes its share of the softmax, and has no value (gpt-oss, arXiv:2508.10925; StreamingLLM, arXiv:2309.17453).

Legend: T row tokens, h query heads and g key-value heads of this tensor-parallel rank, d head dim; N, Q, K as in
`attention_blocks`.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch import Tensor
from torch.nn import functional

from core.megatron.attention.blocks import Block
from core.megatron.attention.on_gpu import ragged, takes
from core.megatron.attention.over_ranks import gathered
from core.megatron.attention.plan import AttentionPlan
from core.megatron.layers.rotary import rotate


class PlanCarrier(Protocol):
    """What travels through Megatron's layers under the name packed_seq_params."""

    attention: AttentionPlan
    rotation: tuple[Tensor, Tensor] | None


class RowAttention(torch.nn.Module):
    """Rotation of queries and keys, then scaled dot-product attention as planned for the row. Dropout: none."""

    sinks: torch.nn.Parameter | None

    def __init__(
        self, config: Any, layer_number: int, window: int | None = None, sinks: bool = False, **_: Any
    ) -> None:
        """Make the layer.

        Args:
            window: number of tokens that a token sees; None: all before it.
            sinks: whether heads have one; a tensor-parallel rank has those of its heads.
        """
        super().__init__()
        self.layer_number, self.window = layer_number, window
        self.scale = config.kv_channels**-0.5
        self.interleaved = config.rotary_interleaved
        self.sinks = None
        if sinks:
            device, heads = torch.cuda.current_device(), config.num_attention_heads // config.tensor_model_parallel_size
            self.sinks = torch.nn.Parameter(torch.empty(heads, dtype=config.params_dtype, device=device))
            set_tensor_model_parallel_attributes(self.sinks, is_parallel=True, dim=0, stride=1)

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: Any = (), metadata: Any = None) -> Any:
        """The rank's part of the sinks in checkpoints."""
        del metadata
        weights = self.state_dict(prefix="", keep_vars=True)
        return make_sharded_tensors_for_checkpoint(weights, prefix, {"sinks": 0}, sharded_offsets)

    def forward(
        self,
        query: Tensor,  # [T, 1, h, d]
        key: Tensor,  # [T, 1, g, d]
        value: Tensor,  # [T, 1, g, d]
        *_unused: Any,  # Megatron's attention mask
        packed_seq_params: PlanCarrier,
        **_: Any,
    ) -> Tensor:
        """[T, 1, h * d]"""
        plan = packed_seq_params.attention
        assert packed_seq_params.rotation is not None, "the model has not prepared this row"
        cos, sin = packed_seq_params.rotation
        query, key = (rotate(heads.squeeze(1), cos, sin, self.interleaved) for heads in (query, key))
        out = attend(query, key, value.squeeze(1), plan, self.scale, self.window, self.sinks)
        return out.reshape(out.shape[0], 1, -1)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: AttentionPlan,
    scale: float,
    window: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """[T, h, v] of queries [T, h, d], keys [T, g, d] and values [T, g, v], as planned for the row.

    Args:
        window: number of tokens that a token sees, itself among them; None: all before it.
        sinks: [h]; None: there are none.
    Collective: the context-parallel ranks, if the plan is of a part of a row.
    """
    if plan.num_keys is not None:
        key, value = gathered(key, value)
    return (ragged if takes(query) else _blockwise)(query, key, value, plan, scale, window, sinks)


def _blockwise(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: AttentionPlan,
    scale: float,
    window: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Gather each block, attend, and put the tokens back in row order: [T, h, d]."""
    planned = plan.blocks(window)
    outputs = [_attend_block(query, key, value, block, scale, sinks).flatten(0, 1) for block in planned.blocks]
    return torch.cat(outputs).index_select(0, planned.order)


def _attend_block(
    query: Tensor, key: Tensor, value: Tensor, block: Block, scale: float, sinks: Tensor | None
) -> Tensor:
    """[N, Q, h, d]"""
    gathered_rows = _gather(query, block.queries), _gather(key, block.keys), _gather(value, block.keys)
    if sinks is not None:
        return _with_sinks(*gathered_rows, block.mask, scale, sinks).transpose(1, 2)
    out = functional.scaled_dot_product_attention(
        *gathered_rows,
        attn_mask=block.mask,
        is_causal=block.mask is None,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2)


def _with_sinks(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, sinks: Tensor) -> Tensor:
    """[N, h, Q, v] of [N, h, Q, d], [N, g, K, d] and [N, g, K, v], step by step."""
    grouped = query.reshape(len(query), key.shape[1], -1, *query.shape[2:])  # [N, g, h / g, Q, d]
    logits = _at_least_float32(grouped @ key[:, :, None].mT * scale)
    if mask is None:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=query.device).tril()[None, None]
    logits = logits.masked_fill(~mask[:, :, None], -torch.inf)
    beside = sinks.to(logits.dtype).view(1, *grouped.shape[1:3], 1, 1).expand(*logits.shape[:-1], 1)
    shares = torch.cat((logits, beside), -1).softmax(-1)[..., :-1].to(value.dtype)
    return (shares @ value[:, :, None]).flatten(1, 2)


def _at_least_float32(numbers: Tensor) -> Tensor:
    """The numbers in float32, unless they are wider."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


def _gather(rows: Tensor, index: Tensor) -> Tensor:
    """[T, h, d] rows at [N, Q] positions, as [N, h, Q, d]."""
    return rows.index_select(0, index.flatten()).view(*index.shape, *rows.shape[1:]).transpose(1, 2)
