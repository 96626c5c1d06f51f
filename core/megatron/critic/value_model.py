"""A model of the policy's shape with an output of one number: the reward expected before each token of a response.

The head is on every tensor-parallel rank of the last stage; it begins at 0, so that nothing is expected at first, and
the first advantages are those without a critic.
Legend: R targets of a row, H hidden.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from core.megatron.model import ModelOptions, PolicyModel, RowParams, block_spec, transformer_config
from core.megatron.state import weight_gradients
from modelcfg import ModelShape


class ValueHead(torch.nn.Module):
    """[R, 1, H] hidden states to [R] float32 values."""

    def __init__(self, hidden_size: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, hidden_size, dtype=dtype, device=device))

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden.float(), self.weight.float()).flatten()


class ValueModel(PolicyModel):
    """The policy's layers with a `ValueHead`; the last stage returns ([R] values, None)."""

    def __init__(self, config: Any, spec: Any, shape: ModelShape, options: ModelOptions) -> None:
        super().__init__(config, spec, shape.model_copy(update={"tied_embeddings": False}), options)
        if self.post_process:
            device = next(self.parameters()).device
            self.output_layer = ValueHead(shape.hidden_size, options.dtype, device)

    def _predict(self, predicting: Tensor, _: RowParams) -> tuple[Tensor, None]:
        return self.output_layer(predicting), None


def build_value_model(shape: ModelShape, options: ModelOptions) -> ValueModel:
    """This rank's stage and shards; only the head has its weights yet. Collective: all ranks."""
    weight_gradients.install()
    config = transformer_config(shape, options)
    return ValueModel(config, block_spec(shape, options), shape, options)
