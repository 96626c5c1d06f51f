"""Parameters that are not trained: they have no gradient, and what is trained gets its own in spite of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from megatron.core.tensor_parallel.layers import ColumnParallelLinear
from torch import Tensor

from modelcfg.weights import EMBEDDING


def freeze(model: Any, names: Collection[str]) -> None:
    """Let the parameters of these names have no gradients.

    Args:
        model: a stage; names of parameters that it has not are passed over.
    Collective: none.
    """
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, ColumnParallelLinear):
            _keep_bias_gradient(module)
    if model.pre_process and EMBEDDING in names:
        begin_with_gradient(model)


def begin_with_gradient(model: Any) -> None:
    """Let what the first stage's embedding gives have a gradient, though the embedding has none.

    Where layers are recomputed, autograd asks the first one's input whether it has gradients.
    """
    model.embedding.register_forward_hook(_with_gradient)


def _keep_bias_gradient(linear: Any) -> None:
    """Megatron's product with a weight that is not trained gives its bias no gradient: add the bias behind it."""
    if linear.bias is None or linear.skip_bias_add or linear.weight is None:
        return
    if linear.bias.requires_grad and not linear.weight.requires_grad:
        linear.skip_bias_add = True
        linear.register_forward_hook(_with_bias)


def _with_bias(_module: Any, _inputs: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, None]:
    product, bias = output
    return product + bias, None


def _with_gradient(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
    return output.requires_grad_() if torch.is_grad_enabled() else output
