"""Attention whose keys and values are made of few numbers per token (multi-latent attention).

Source: DeepSeek-V2, arXiv:2405.04434, section 2.1. Differs from Megatron's own layer, which makes its rotary angles of
the length of a sequence: here positions are those of a packed row, and the attention is that of all other models. The
norms of the few numbers have the model's epsilon, as SGLang and Megatron have it; transformers has 1e-6 in any model.
A tensor-parallel rank has some heads. The few numbers are made of its own tokens under sequence parallel, and gathered
ahead of what makes heads of them.
Legend: T row tokens, H hidden, h heads of this tensor-parallel rank, d head dim, r rank, p turned channels of a head,
v channels of a head's values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from megatron.core.transformer.module import MegatronModule
from torch import Tensor

from core.megatron.attention.packed import PlanCarrier, attend
from core.megatron.layers.norm import RMSNorm
from core.megatron.layers.rotary import rotate
from core.megatron.layers.whole_linear import WholeLinear
from modelcfg import LatentAttention, ModelShape, YarnScaling


class LatentSelfAttention(MegatronModule):  # type: ignore[misc]
    """Takes the place of Megatron's self-attention in a layer."""

    def __init__(self, config: Any, shape: ModelShape, latent: LatentAttention, layer_number: int, **_: Any) -> None:
        super().__init__(config)
        self.layer_number, self.latent, self.interleaved = layer_number, latent, shape.rotary_interleaved
        self.kept = shape.head_dim - latent.rotary_dim
        scaling = shape.rope_scaling
        sharper = scaling.logit_factor if isinstance(scaling, YarnScaling) else 1.0
        self.scale = shape.head_dim**-0.5 * sharper
        heads = shape.num_attention_heads
        self.heads = heads // parallel_state.get_tensor_model_parallel_world_size()
        options = {"config": config, "init_method": config.init_method, "bias": False, "skip_bias_add": True}
        self.linear_proj = RowParallelLinear(
            heads * latent.value_dim, shape.hidden_size, input_is_parallel=True, **options
        )
        options["gather_output"] = False
        if latent.query_rank:
            self.linear_q_down = _of_own_tokens(config, shape.hidden_size, latent.query_rank)
            self.q_layernorm = RMSNorm(config, latent.query_rank, shape.norm_eps)
            self.linear_q_up = ColumnParallelLinear(latent.query_rank, shape.query_size, **options)
        else:
            self.linear_q = ColumnParallelLinear(shape.hidden_size, shape.query_size, **options)
        self.linear_kv_down = _of_own_tokens(config, shape.hidden_size, latent.rank + latent.rotary_dim)
        self.of_all_tokens: Callable[[Tensor], Tensor] = copy_to_tensor_model_parallel_region
        if config.sequence_parallel:
            self.of_all_tokens = gather_from_sequence_parallel_region
        self.kv_layernorm = RMSNorm(config, latent.rank, shape.norm_eps)
        self.linear_kv_up = ColumnParallelLinear(latent.rank, heads * (self.kept + latent.value_dim), **options)

    def forward(
        self, hidden_states: Tensor, *_unused: Any, packed_seq_params: PlanCarrier, **_: Any
    ) -> tuple[Tensor, None]:
        """[T, 1, H], and no bias."""
        assert packed_seq_params.rotation is not None, "the model has not prepared this row"
        cos, sin = packed_seq_params.rotation
        query = self._query(hidden_states)  # [T, h, d]
        few, turned = self.linear_kv_down(hidden_states).split([self.latent.rank, self.latent.rotary_dim], -1)
        both, _ = self.linear_kv_up(self.kv_layernorm(few))
        both = both.view(-1, self.heads, self.kept + self.latent.value_dim)
        key, value = torch.split(both, [self.kept, self.latent.value_dim], -1)
        kept, positioned = torch.split(query, [self.kept, self.latent.rotary_dim], -1)
        query = torch.cat((kept, rotate(positioned.contiguous(), cos, sin, self.interleaved)), -1)
        # of all heads of all ranks, so that its gradient is the sum of theirs
        turned = rotate(self.of_all_tokens(turned).contiguous(), cos, sin, self.interleaved)  # [T, 1, p]
        key = torch.cat((key, turned.expand(-1, self.heads, -1)), -1)
        out = attend(query, key, value.contiguous(), packed_seq_params.attention, self.scale)  # [T, h, v]
        output, _ = self.linear_proj(out.reshape(len(out), 1, -1))
        return output, None

    def _query(self, hidden_states: Tensor) -> Tensor:
        if self.latent.query_rank:
            query, _ = self.linear_q_up(self.q_layernorm(self.linear_q_down(hidden_states)))
        else:
            query, _ = self.linear_q(hidden_states)
        heads: Tensor = query.view(len(query), self.heads, -1)
        return heads


def _of_own_tokens(config: Any, inputs: int, outputs: int) -> WholeLinear:
    """A product of a rank's tokens, whose weight is the same on all ranks."""
    linear = WholeLinear(config, inputs, outputs)
    linear.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
    return linear
