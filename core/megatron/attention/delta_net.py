"""A layer with a state in the place of attention: a gated delta net.

Query, key and value are sums over a token and a few before it, by channel, behind which comes a SiLU; queries and keys
have length 1. What a query reads from the state is normed and gated. Source: arXiv:2412.06464, section 3.4; the
projections are those of Qwen3-Next or of Qwen3.5, and lie head by head. A prompt that responses share is computed once:
they go on from the state in which it ends, and from its last tokens. Of the forward pass only projections are kept; the
rest is computed again, some heads at a time. A tensor-parallel rank has some key heads, with all of their states, of
all tokens. Left out: context parallel.
Legend: T row tokens, h key heads (of a block), r states of each, d channels of a key, v of a value, w = 2 d + r v.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel.layers import (
    ColumnParallelLinear,
    RowParallelLinear,
    set_tensor_model_parallel_attributes,
)
from megatron.core.tensor_parallel.mappings import copy_to_tensor_model_parallel_region
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from core.megatron.attention.delta_rule import delta_rule
from core.megatron.attention.plan import AttentionPlan
from core.megatron.attention.runs import Runs
from core.megatron.layers.norm import RMSNorm
from core.megatron.sizes.activations import states_at_once
from modelcfg import DeltaNet, ModelShape

LEAST_SQUARE = 1e-6  # added to the square of a query's or key's length


class PlanCarrier(Protocol):
    """What travels through Megatron's layers under the name packed_seq_params."""

    attention: AttentionPlan


class OfHeads(torch.nn.Module):
    """Weights of which each tensor-parallel rank has those of its heads."""

    def weights_of(self, config: Any, *size: int) -> torch.nn.Parameter:
        """A weight of this rank's part, which Megatron takes for one."""
        device = torch.cuda.current_device()
        weight = torch.nn.Parameter(torch.empty(size, dtype=config.params_dtype, device=device))
        set_tensor_model_parallel_attributes(weight, is_parallel=True, dim=0, stride=1)
        return weight

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: Any = (), metadata: Any = None) -> Any:
        """Parts of the weights in checkpoints."""
        del metadata
        weights = self.state_dict(prefix="", keep_vars=True)
        return make_sharded_tensors_for_checkpoint(weights, prefix, dict.fromkeys(weights, 0), sharded_offsets)


class Before(OfHeads):
    """Weights of the sum over a token and those before it."""

    def __init__(self, config: Any, width: int, taps: int) -> None:
        super().__init__()
        self.taps = self.weights_of(config, width, 1, taps)


class Pace(OfHeads):
    """How fast states fade."""

    def __init__(self, config: Any, states: int) -> None:
        super().__init__()
        self.bias = self.weights_of(config, states)
        self.log = self.weights_of(config, states)


class DeltaNetLayer(MegatronModule):  # type: ignore[misc]
    """Takes the place of Megatron's self-attention in a layer."""

    def __init__(self, config: Any, shape: ModelShape, delta: DeltaNet, layer_number: int, **_: Any) -> None:
        super().__init__(config)
        self.layer_number, self.delta = layer_number, delta
        ranks = parallel_state.get_tensor_model_parallel_world_size()
        self.heads = delta.key_heads // ranks
        options = {"config": config, "init_method": config.init_method, "bias": False, "skip_bias_add": True}
        self.linear_proj = RowParallelLinear(delta.value_size, shape.hidden_size, input_is_parallel=True, **options)
        for name, width in delta.projections.items():
            linear = ColumnParallelLinear(shape.hidden_size, width, gather_output=False, **options)
            self.add_module(f"linear_{name}", linear)
        self.before = Before(config, sum(delta.mixed) // ranks, delta.taps)
        self.pace = Pace(config, delta.value_heads // ranks)
        self.read_norm = RMSNorm(config, delta.value_dim, shape.norm_eps)
        self.read_norm.weight.sequence_parallel = False  # type: ignore[attr-defined]  # its gradient is summed below

    def forward(
        self, hidden_states: Tensor, *_unused: Any, packed_seq_params: PlanCarrier, **_: Any
    ) -> tuple[Tensor, None]:
        """[T, 1, H], and no bias."""
        runs = packed_seq_params.attention.runs
        before = runs.before(self.delta.taps - 1)
        weights = (self.before.taps, self.pace.log, self.pace.bias)
        every_head = (*self._projected(hidden_states), *(one.view(self.heads, -1, *one.shape[2:]) for one in weights))
        at_once = max(1, states_at_once(len(every_head[0])) // self.delta.repeat)
        dims = (1, 1, 0, 0, 0)  # of the heads
        blocks = zip(*(torch.split(one, at_once, dim) for one, dim in zip(every_head, dims, strict=True)), strict=True)
        # of all heads of all ranks, so that its gradient is the sum of theirs
        norm = copy_to_tensor_model_parallel_region(self.read_norm.weight)
        read = [
            checkpoint(self._heads, *block, norm, runs, before, use_reentrant=False, preserve_rng_state=False)
            for block in blocks
        ]
        output, _ = self.linear_proj(torch.cat(read, 1).flatten(1)[:, None])
        return output, None

    def _projected(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """[T, h, w + r v]: query, key, values and gates of each key head, and [T, h, 2 r]: strengths and decays."""
        found = [self.get_submodule(f"linear_{name}")(hidden_states)[0][:, 0] for name in self.delta.projections]
        by_head = [one.unflatten(-1, (self.heads, -1)) for one in found]
        half = len(by_head) // 2
        return _together(by_head[:half]), _together(by_head[half:])

    def _heads(
        self,
        qkvz: Tensor,
        ba: Tensor,
        taps: Tensor,
        log: Tensor,
        bias: Tensor,
        norm: Tensor,
        runs: Runs,
        before: list[Tensor],
    ) -> Tensor:
        """[T, h, r v] of some heads, of their [T, h, w + r v] and [T, h, 2 r] projections."""
        delta, values = self.delta, self.delta.repeat * self.delta.value_dim
        mixed, gate = torch.split(qkvz, [2 * delta.key_dim + values, values], -1)
        summed = functional.silu(_sum_before(mixed, taps, before)).to(qkvz.dtype).float()
        query, key, value = torch.split(summed, [delta.key_dim, delta.key_dim, values], -1)
        strength, fading = ba.float().chunk(2, -1)  # [T, h, r]
        read = delta_rule(
            _of_length_1(query) * delta.key_dim**-0.5,
            _of_length_1(key),
            value.view(*value.shape[:2], delta.repeat, -1),
            -log.float().exp() * functional.softplus(fading + bias.float()),
            strength.sigmoid(),
            runs,
        )
        normed = functional.rms_norm(read, read.shape[-1:], norm.float(), self.read_norm.eps)
        return (normed.flatten(2) * functional.silu(gate.float())).to(qkvz.dtype)


def _together(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _sum_before(numbers: Tensor, taps: Tensor, before: list[Tensor]) -> Tensor:
    """[T, h, w] float32: each number and those of its channel before it, times [h, w, taps], the last for its own."""
    weights = taps.float()
    padded = functional.pad(numbers, (0, 0, 0, 0, 0, 1))
    found = numbers * weights[..., -1]
    for distance, positions in enumerate(before, 2):
        found = found + padded[positions] * weights[..., -distance]
    return found


def _of_length_1(vectors: Tensor) -> Tensor:
    return vectors * (vectors.square().sum(-1, keepdim=True) + LEAST_SQUARE).rsqrt()
