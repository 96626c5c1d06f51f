"""A layer with a state in the place of attention: a gated delta net.

Query, key and value are sums over a token and a few before it, by channel, behind which comes a SiLU; queries and keys
have length 1. What a query reads from the state is normed and gated. Source: arXiv:2412.06464, section 3.4; the
projections are those of Qwen3-Next, which lie head by head, or of Qwen3.5, which are put in that order. A prompt that
responses share is computed once: they go on from the state in which it ends, and from its last tokens. Of the forward
pass only projections are kept; the rest is computed again, some heads at a time. Left out: tensor and context parallel.
Legend: T row tokens, h key heads (of a block), r states of each, d channels of a key, v of a value, w = 2 d + r v.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from megatron.core.transformer.module import MegatronModule
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from core.megatron.attention.delta_rule import delta_rule
from core.megatron.attention.plan import AttentionPlan
from core.megatron.attention.runs import Runs
from core.megatron.layers.norm import RMSNorm
from core.megatron.layers.whole_linear import WholeLinear
from core.megatron.sizes.activations import states_at_once
from modelcfg import DeltaNet, ModelShape

LEAST_SQUARE = 1e-6  # added to the square of a query's or key's length


class PlanCarrier(Protocol):
    """What travels through Megatron's layers under the name packed_seq_params."""

    attention: AttentionPlan


class Before(torch.nn.Module):
    """Weights of the sum over a token and those before it."""

    def __init__(self, config: Any, width: int, taps: int) -> None:
        super().__init__()
        device = torch.cuda.current_device()
        self.weight = torch.nn.Parameter(torch.empty(width, 1, taps, dtype=config.params_dtype, device=device))


class Pace(torch.nn.Module):
    """How fast states fade."""

    def __init__(self, config: Any, states: int) -> None:
        super().__init__()
        device = torch.cuda.current_device()
        self.bias = torch.nn.Parameter(torch.empty(states, dtype=config.params_dtype, device=device))
        self.log = torch.nn.Parameter(torch.empty(states, dtype=config.params_dtype, device=device))


class DeltaNetLayer(MegatronModule):  # type: ignore[misc]
    """Takes the place of Megatron's self-attention in a layer."""

    def __init__(self, config: Any, shape: ModelShape, delta: DeltaNet, layer_number: int, **_: Any) -> None:
        super().__init__(config)
        self.layer_number, self.delta = layer_number, delta
        self.linear_proj = WholeLinear(config, delta.value_size, shape.hidden_size)
        for name, width in delta.projections.items():
            self.add_module(f"linear_{name}", WholeLinear(config, shape.hidden_size, width))
        self.before = Before(config, 2 * delta.key_size + delta.value_size, delta.taps)
        self.pace = Pace(config, delta.value_heads)
        self.read_norm = RMSNorm(config, delta.value_dim, shape.norm_eps)

    def forward(
        self, hidden_states: Tensor, *_unused: Any, packed_seq_params: PlanCarrier, **_: Any
    ) -> tuple[Tensor, None]:
        """[T, 1, H], and no bias."""
        runs, heads = packed_seq_params.attention.runs, self.delta.key_heads
        before = runs.before(self.delta.taps - 1)
        every_head = (
            *self._projected(hidden_states),
            self._taps(),
            self.pace.log.view(heads, -1),
            self.pace.bias.view(heads, -1),
        )
        at_once = max(1, states_at_once(len(hidden_states)) // self.delta.repeat)
        dims = (1, 1, 0, 0, 0)  # of the heads
        blocks = zip(*(torch.split(one, at_once, dim) for one, dim in zip(every_head, dims, strict=True)), strict=True)
        read = [
            checkpoint(self._heads, *block, runs, before, use_reentrant=False, preserve_rng_state=False)
            for block in blocks
        ]
        return self.linear_proj(torch.cat(read, 1).flatten(1)[:, None]), None

    def _projected(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """[T, h, w + r v]: query, key, values and gates of each key head, and [T, h, 2 r]: strengths and decays."""
        found = [self.get_submodule(f"linear_{name}")(hidden_states)[:, 0] for name in self.delta.projections]
        if self.delta.by_head:
            qkvz, ba = (one.unflatten(-1, (self.delta.key_heads, -1)) for one in found)
            return qkvz, ba
        mixed, *others = found
        return self._by_head([*self._apart(mixed, -1), others[0]], -1), self._by_head(others[1:], -1)

    def _taps(self) -> Tensor:
        """[h, w, taps] weights, in the order in which a head has its numbers."""
        return self._by_head(self._apart(self.before.weight[:, 0], 0), 0)

    def _apart(self, mixed: Tensor, dim: int) -> tuple[Tensor, ...]:
        """The parts of all queries, of all keys and of all values."""
        return torch.split(mixed, [self.delta.key_size, self.delta.key_size, self.delta.value_size], dim)

    def _by_head(self, parts: Sequence[Tensor], dim: int) -> Tensor:
        """The parts with each key head's share of all of them together, in a dimension of heads and one behind it."""
        return torch.cat(
            [torch.unflatten(one, dim, (self.delta.key_heads, -1)) for one in parts], dim if dim < 0 else dim + 1
        )

    def _heads(
        self, qkvz: Tensor, ba: Tensor, taps: Tensor, log: Tensor, bias: Tensor, runs: Runs, before: list[Tensor]
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
        normed = functional.rms_norm(read, read.shape[-1:], self.read_norm.weight.float(), self.read_norm.eps)
        return (normed.flatten(2) * functional.silu(gate.float())).to(qkvz.dtype)


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
