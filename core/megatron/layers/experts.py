"""Feed-forwards of several experts: Megatron's parameters, and on GPUs products over all experts at once.

A token goes to the `experts_per_token` experts that its router chooses (`routers.py`), and their results are added with
its weights; that of a feed-forward for all tokens is added to them, where the shape has one. No token is dropped, and
no loss balances the experts: what is trained is the policy's reward alone. Under expert parallelism tokens travel to
the rank of their expert and back (Megatron's dispatcher, all-to-all), in the forward and the backward pass, so all
these ranks need the same number of micro-batches. Tensor-parallel ranks are expert-parallel ones like others, each with
its own tokens of a row (sequence parallel). Where experts are cut over some of them, the first projection by columns
and the second by rows, the dispatcher brings each of these ranks the tokens of all, and adds up what their parts give;
without biases alone, of which every part would add its own. On CPUs Megatron's loop over the experts computes them.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from megatron.core.tensor_parallel.layers import (
    ColumnParallelLinear,
    RowParallelLinear,
    set_tensor_model_parallel_attributes,
)
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.moe import moe_utils
from megatron.core.transformer.moe.experts import SequentialMLP
from megatron.core.transformer.moe.moe_layer import MoELayer, MoESubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from torch import Tensor

from core.megatron.layers.expert_places import Slots
from core.megatron.layers.grouped_experts import Products, Projection, can_group
from core.megatron.layers.mlp import SharedMLP
from core.megatron.layers.routers import router_of
from modelcfg import ModelShape
from modelcfg.shape import STEEPNESS


def expert_settings(shape: ModelShape, expert_parallel: int, expert_tensor_parallel: int) -> dict[str, Any]:
    """Settings of experts for Megatron; without experts what it asks for all the same: variable_seq_lengths insists on
    the dispatcher.
    """
    always = {"moe_token_dispatcher_type": "alltoall", "moe_layer_freq": _layers_with_experts(shape)}
    if not shape.num_experts:
        return always
    return always | {
        "num_moe_experts": shape.num_experts,
        "moe_router_topk": shape.experts_per_token,
        "moe_ffn_hidden_size": shape.ffn_hidden_size,
        "moe_shared_expert_intermediate_size": shape.shared_ffn_hidden_size or None,
        "moe_shared_expert_gate": shape.shared_gate,
        "moe_router_dtype": "fp32" if shape.router else None,
        **(_clamped(shape.clamp) if shape.clamp else {}),
        "moe_router_load_balancing_type": "none",
        "moe_aux_loss_coeff": 0.0,
        "expert_model_parallel_size": expert_parallel,
        "expert_tensor_parallel_size": expert_tensor_parallel,
    }


def _clamped(limit: float) -> dict[str, Any]:
    """The activation of gpt-oss, for Megatron's loop: gate * sigmoid(1.702 gate) * (up + 1), both clamped."""
    return {"activation_func": steep, "glu_linear_offset": 1.0, "activation_func_clamp_value": limit}


def steep(gate: Tensor) -> Tensor:
    """What the gate is multiplied to; Megatron's own is compiled."""
    return gate * torch.sigmoid(STEEPNESS * gate)


def _layers_with_experts(shape: ModelShape) -> list[int] | int:
    """Each layer by itself, if layers differ in any way: checkpoints then hold a layer's parameters by themselves."""
    if shape.dense_layers or shape.delta is not None:
        return [int(shape.has_experts(layer)) for layer in range(shape.num_layers)]
    return 1


def expert_layer(shape: ModelShape) -> Any:
    """What takes the feed-forward's place in a layer."""
    if not moe_utils.HAVE_TE:
        moe_utils.te_general_gemm = None  # megatron-core 0.16 asks whether it is None, and has not set it then
    feed_forward = MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear)
    of_expert = MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=OwnResult)
    experts = ModuleSpec(module=Experts, submodules=of_expert)
    shared = ModuleSpec(module=SharedMLP, submodules=feed_forward)
    parts = MoESubmodules(experts=experts, shared_experts=shared, router=router_of(shape))
    return ModuleSpec(module=ExpertLayer, submodules=parts)


class OwnResult(RowParallelLinear):  # type: ignore[misc]
    """An expert's second projection. Megatron's loop adds biases to its result in place, which autograd refuses for a
    view, as it is on one rank.
    """

    def forward(self, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
        """([S, H], bias)."""
        output, bias = super().forward(*arguments, **options)
        return (output if bias is None else output.clone()), bias


class Experts(SequentialMLP):  # type: ignore[misc]
    """The experts of a rank: Megatron's parameters, one per expert and projection."""

    def __init__(self, number: int, config: Any, *arguments: Any, **options: Any) -> None:
        alone = copy(config)
        alone.sequence_parallel = False  # other ranks' gradients are of other experts
        super().__init__(number, alone, *arguments, **options)
        first, second = ([getattr(one, name) for one in self.local_experts] for name in ("linear_fc1", "linear_fc2"))
        for one in second:  # so that it counts in the norm of the gradients, whichever rank has it
            if one.bias is not None:
                set_tensor_model_parallel_attributes(one.bias, is_parallel=True, dim=0, stride=1)
        self.products = Products(
            Projection([one.weight for one in first]),
            Projection([one.weight for one in second]),
            [one.bias for one in first if one.bias is not None],
            [one.bias for one in second if one.bias is not None],
            limit=self.config.activation_func_clamp_value or 0.0,
        )

    def forward(self, hidden: Tensor, tokens_per_expert: Tensor, probabilities: Tensor) -> tuple[Tensor, None]:
        """([S, H], no bias), of rows that the dispatcher has sorted by expert."""
        if not can_group(hidden):
            result: tuple[Tensor, None] = super().forward(hidden, tokens_per_expert, probabilities)
            return result
        return self.products(hidden, probabilities, Slots.sorted(tokens_per_expert, hidden.device)), None


class ExpertLayer(MoELayer):  # type: ignore[misc]
    """Megatron's layer; where no token leaves its rank, without its dispatcher, which reads counts on the host."""

    @property
    def stays_here(self) -> bool:
        """Whether all of all experts is on this rank."""
        return bool(self.ep_group.size() == self.experts.tp_group.size() == 1)

    def forward(self, hidden_states: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, None]:
        """([T, 1, H], no bias)."""
        if self.stays_here and can_group(hidden_states):
            return self._on_this_rank(hidden_states), None
        output: tuple[Tensor, None] = super().forward(hidden_states, *arguments, **options)
        # kept, they would hold the graph of the forward pass, whose ends hold the model (Megatron's hooks): a circle
        # that Python's garbage collection does not see
        self.token_dispatcher.probs = self.token_dispatcher.routing_map = None
        return output

    def _on_this_rank(self, hidden_states: Tensor) -> Tensor:
        tokens = hidden_states.flatten(0, -2)
        probabilities, chosen = self.router.choose(self.router.gating(tokens))
        output: Tensor = self.experts.products(tokens, probabilities, Slots.of(chosen, self.config.num_moe_experts))
        output = output.view_as(hidden_states)
        return output if self.shared_experts is None else output + self.shared_experts(hidden_states)
