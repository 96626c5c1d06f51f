"""A layer with experts: its router hears which row it computes, in the forward pass and where that is recomputed."""

from __future__ import annotations

from typing import Any

from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor


class RoutedLayer(TransformerLayer):  # type: ignore[misc]
    """Megatron's layer, which tells its feed-forward nothing of the row."""

    def forward(self, *arguments: Any, **options: Any) -> tuple[Tensor, Any]:
        """([T, 1, H], what Megatron's layer gives beside it)."""
        router = self.mlp.router
        router.row = options["packed_seq_params"].routing
        try:
            result: tuple[Tensor, Any] = super().forward(*arguments, **options)
            return result
        finally:
            router.row = None  # the next pass may be another model's, or a reference's
