"""A plugin for SGLang (0.5.21) on a CPU: the products of an engine in int8, which it has kernels for on GPUs alone.

They are what those compute: activations are rounded token by token, integers are multiplied and added exactly, and the
sum is multiplied by the factors of its token and of its row of weights. A request's result does not depend on others.
Without EBBTIDE_ENGINE_WEIGHTS=int8 (`core.sglang.launch`) it does nothing.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

LARGEST = 127  # of the numbers
LEAST = 1e-10  # of a token's largest activation


def register() -> None:
    """Called by SGLang in each of its processes: give its module what it has for a GPU, and more precisions."""
    if os.environ.get("EBBTIDE_ENGINE_WEIGHTS") != "int8":
        return
    try:
        from sglang.srt.layers.quantization import w8a8_int8

        w8a8_int8.per_token_quant_int8 = round_activations
        w8a8_int8.int8_scaled_mm = multiply
        w8a8_int8.W8A8Int8Config.get_supported_act_dtypes = precisions
        w8a8_int8.W8A8Int8MoEMethod.apply = apply_experts
    except Exception:
        traceback.print_exc()
        sys.exit("ebbtide: this SGLang has no int8 as in 0.5.21")


def precisions(*_: Any) -> list[torch.dtype]:
    """What an engine has all else in."""
    return [torch.float32, torch.bfloat16]


def round_activations(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Activations as int8, and the factor of each token, [..., 1] float32."""
    whole = activations.float()
    most = whole.abs().amax(-1, keepdim=True).clamp_min(LEAST)
    return (whole * (LARGEST / most)).round().to(torch.int8), most / LARGEST


def multiply(
    tokens: Tensor,
    weight: Tensor,
    of_tokens: Tensor,
    of_rows: Tensor,
    out_dtype: torch.dtype,
    bias: Tensor | None = None,
) -> Tensor:
    """What SGLang has of sgl_kernel: [T, I] times [I, O], both int8, with the factors of tokens and of rows."""
    product = torch._int_mm(tokens, weight).float() * of_tokens.view(-1, 1) * of_rows.view(1, -1)
    return (product if bias is None else product + bias).to(out_dtype)


def apply_experts(method: Any, layer: Any, dispatch_output: Any) -> Any:
    """What experts make of the tokens that chose them, one expert after the other."""
    from sglang.srt.layers.moe.token_dispatcher import StandardCombineInput

    config, states = method.moe_runner_config, dispatch_output.hidden_states
    if config.activation != "silu" or config.apply_router_weight_on_input:
        raise NotImplementedError(f"experts in int8 with {config}")
    shares, chosen, _ = dispatch_output.topk_output
    found = torch.zeros_like(states)
    for expert in chosen.unique().tolist():
        token, place = (chosen == expert).nonzero(as_tuple=True)
        gate, up = _linear(states[token], layer.w13_weight[expert], layer.w13_weight_scale[expert]).chunk(2, -1)
        made = _linear(silu(gate) * up, layer.w2_weight[expert], layer.w2_weight_scale[expert])
        found.index_add_(0, token, made * shares[token, place, None].to(made.dtype))
    return StandardCombineInput(hidden_states=found)


def _linear(states: Tensor, weight: Tensor, factors: Tensor) -> Tensor:
    numbers, of_tokens = round_activations(states)
    return multiply(numbers, weight.t(), of_tokens, factors, states.dtype)
