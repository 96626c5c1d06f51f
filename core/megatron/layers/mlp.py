"""Megatron's MLP with the gated activation in one kernel where there is one."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.moe.shared_experts import SharedExpertMLP
from torch import Tensor
from torch.nn import functional

from core.megatron.layers.fused import load
from core.megatron.layers.made_again import made_again

fused_swiglu = load("swiglu")


class GatedMLP(MLP):  # type: ignore[misc]
    """silu(x W_gate) * (x W_up) W_down, without biases."""

    def __init__(self, config: Any, **options: Any) -> None:
        parts = MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear)
        super().__init__(config, parts, **options)

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor, Tensor | None]:
        """([T, 1, H], no bias)."""
        return _forward(self, hidden_states)


class SharedMLP(SharedExpertMLP):  # type: ignore[misc]
    """The same beside experts, for all tokens; with a gate, times the sigmoid of one number of each token."""

    def __init__(self, config: Any, submodules: MLPSubmodules, gate: bool, **options: Any) -> None:
        super().__init__(config, submodules, gate=gate, **options)
        if gate:  # Megatron makes it on the CPU, and in float32 at first
            device = torch.cuda.current_device()
            weight = torch.empty(1, config.hidden_size, dtype=config.params_dtype, device=device)
            self.gate_weight = torch.nn.Parameter(weight)
            self.gate_weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[T, 1, H]."""
        output, _ = _forward(self, hidden_states)
        if self.use_shared_expert_gate:
            return output * functional.linear(hidden_states, self.gate_weight).sigmoid()
        return output


def _forward(layer: MLP, hidden_states: Tensor) -> tuple[Tensor, Tensor | None]:
    both, _ = layer.linear_fc1(hidden_states)
    swiglu = fused_swiglu.swiglu if fused_swiglu is not None and both.is_cuda else _swiglu
    output, bias = layer.linear_fc2(made_again(swiglu, both))
    return output, bias


def _swiglu(both: Tensor) -> Tensor:
    """[T, 1, F], of [T, 1, 2 F]: as the kernel, in steps."""
    gate, up = both.chunk(2, dim=-1)
    return functional.silu(gate) * up
