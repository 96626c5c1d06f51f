"""Feed-forwards of several experts: Megatron's layer, router, dispatcher and experts.

A token goes to the `experts_per_token` experts that its router finds most probable, and their results are added with
these probabilities, made to sum to 1 (Qwen3, arXiv:2505.09388). No token is dropped, and no loss balances the experts:
what is trained is the policy's reward alone. Under expert parallelism tokens travel to the rank of their expert and
back (all-to-all), in the forward and the backward pass, so all these ranks need the same number of micro-batches.
"""

from __future__ import annotations

from typing import Any

from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.moe import moe_utils
from megatron.core.transformer.moe.experts import SequentialMLP
from megatron.core.transformer.moe.moe_layer import MoELayer, MoESubmodules
from megatron.core.transformer.spec_utils import ModuleSpec

from modelcfg import ModelShape


def expert_settings(shape: ModelShape, expert_parallel: int) -> dict[str, Any]:
    """Settings of experts for Megatron; without experts only the dispatcher: variable_seq_lengths insists on it."""
    dispatcher = {"moe_token_dispatcher_type": "alltoall"}
    if not shape.num_experts:
        return dispatcher
    return dispatcher | {
        "num_moe_experts": shape.num_experts,
        "moe_router_topk": shape.experts_per_token,
        "moe_ffn_hidden_size": shape.ffn_hidden_size,
        "moe_router_load_balancing_type": "none",
        "moe_aux_loss_coeff": 0.0,
        "expert_model_parallel_size": expert_parallel,
    }


def expert_layer() -> Any:
    """What takes the feed-forward's place in a layer."""
    if not moe_utils.HAVE_TE:
        moe_utils.te_general_gemm = None  # megatron-core 0.16 asks whether it is None, and has not set it then
    feed_forward = MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear)
    experts = ModuleSpec(module=SequentialMLP, submodules=feed_forward)
    return ModuleSpec(module=ExpertLayer, submodules=MoESubmodules(experts=experts))


class ExpertLayer(MoELayer):  # type: ignore[misc]
    """Megatron's layer, that keeps nothing of a micro-batch.

    Its dispatcher would keep the router's probabilities: they hold the graph of the forward pass, whose ends hold the
    model (Megatron's hooks), a circle that Python's garbage collection does not see.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        self.token_dispatcher.probs = self.token_dispatcher.routing_map = None
        return output
