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

fused_swiglu = load("swiglu")


class GatedMLP(MLP):  # type: ignore[misc]
    """silu(x W_gate) * (x W_up) W_down, without biases."""

    def __init__(self, config: Any, **options: Any) -> None:
        parts = MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear)
        super().__init__(config, parts, **options)

    def forward(self, hidden_states: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
        """([T, 1, H], no bias). On a CPU as Megatron does it."""
        return _forward(self, hidden_states, *arguments, **options)


class SharedMLP(SharedExpertMLP):  # type: ignore[misc]
    """The same beside experts, for all tokens; with a gate, times the sigmoid of one number of each token."""

    def __init__(self, config: Any, submodules: MLPSubmodules, gate: bool, **options: Any) -> None:
        super().__init__(config, submodules, gate=gate, **options)
        if gate:  # Megatron makes it on the CPU, and in float32 at first
            device = torch.cuda.current_device()
            weight = torch.empty(1, config.hidden_size, dtype=config.params_dtype, device=device)
            self.gate_weight = torch.nn.Parameter(weight)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[T, 1, H]."""
        output, _ = _forward(self, hidden_states)
        if self.use_shared_expert_gate:
            return output * functional.linear(hidden_states, self.gate_weight).sigmoid()
        return output


def _forward(layer: MLP, hidden_states: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
    if fused_swiglu is None or not hidden_states.is_cuda:
        result: tuple[Tensor, Tensor | None] = MLP.forward(layer, hidden_states, *arguments, **options)
        return result
    both, _ = layer.linear_fc1(hidden_states)
    output, bias = layer.linear_fc2(fused_swiglu.swiglu(both))
    return output, bias
