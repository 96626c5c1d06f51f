"""Low-rank adapters beside the linear layers of a model whose own weights stay as they are.

A layer that computes x W^T gives x W^T + alpha / r (x A^T) B^T. Only A and B are trained, and B begins at zero, so that
the model is its base at first. Source: LoRA, arXiv:2106.09685; A begins as in PEFT. Left out: dropout, tensor parallel.
Legend: T row tokens, I inputs and O outputs of a layer, r rank.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from core.config.schema import LoraConfig
from core.megatron.layers.whole_linear import WholeLinear
from modelcfg import ModelShape
from modelcfg.adapters import Adapted, adapted_layers


class Adapter(torch.nn.Module):
    """What one projection adds."""

    def __init__(self, config: Any, inputs: int, outputs: int, lora: LoraConfig) -> None:
        super().__init__()
        self.lora_A, self.lora_B = WholeLinear(config, inputs, lora.rank), WholeLinear(config, lora.rank, outputs)
        self.scale = lora.scale

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, 1, O] of [T, 1, I]."""
        added: Tensor = self.lora_B(self.lora_A(hidden) * self.scale)
        return added

    @torch.no_grad()
    def begin(self, seed: int, name: str) -> None:
        """Fill A by seed and name alone, so that every rank and layout has the same, and B with zeros."""
        digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        weight = self.lora_A.weight
        drawn = torch.empty(weight.shape)
        torch.nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        weight.copy_(drawn)
        self.lora_B.weight.zero_()


class LayerAdapters(torch.nn.ModuleDict):
    """The adapters of one of Megatron's linear layers, by what PEFT calls the projections."""

    def __init__(self, config: Any, adapted: Adapted, lora: LoraConfig) -> None:
        super().__init__(
            {
                adapted.name(place): Adapter(config, adapted.inputs, adapted.outputs(place), lora)
                for place in adapted.chosen
            }
        )
        self.adapted, self.enabled = adapted, True

    def after(self, _layer: Any, inputs: tuple[Tensor, ...], output: Any) -> Any:
        """Add to what the layer has computed: a hook of it."""
        if not self.enabled:
            return output
        added = self._added(inputs[0])
        return (output[0] + added, *output[1:]) if isinstance(output, tuple) else output + added

    def _added(self, hidden: Tensor) -> Tensor:
        """[T, 1, outputs of the layer], in the order in which it has them."""
        adapted = self.adapted
        found: dict[int, Tensor] = {place: self[adapted.name(place)](hidden) for place in adapted.chosen}
        if len(adapted.hf) == 1:
            return found[0]
        like = next(iter(found.values()))
        parts = [
            found[place].view(*like.shape[:-1], adapted.groups, width)
            if place in found
            else like.new_zeros(*like.shape[:-1], adapted.groups, width)
            for place, width in enumerate(adapted.widths)
        ]
        return torch.cat(parts, -1).flatten(-2)


def attach(model: Any, shape: ModelShape, lora: LoraConfig, first_layer: int, seed: int) -> None:
    """Give a stage's layers their adapters, and let nothing else of the model have gradients.

    Args:
        model: a stage, with its layers at `decoder.layers`.
        first_layer: number of the first of them in the whole model.
    Collective: none.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for index, layer in enumerate(model.decoder.layers):
        number = first_layer + index
        for adapted in adapted_layers(shape, number, lora.targets):
            linear = layer.get_submodule(adapted.local)
            linear.adapters = LayerAdapters(model.config, adapted, lora)
            linear.register_forward_hook(linear.adapters.after)
            for place in adapted.chosen:
                linear.adapters[adapted.name(place)].begin(seed, f"{number} {adapted.hf[place]}")
    if model.pre_process:  # where layers are recomputed, autograd asks the first one's input whether it has gradients
        model.embedding.register_forward_hook(_with_gradient)


@contextmanager
def switched_off(model: torch.nn.Module) -> Iterator[None]:
    """The model is its base inside."""
    found = [module for module in model.modules() if isinstance(module, LayerAdapters)]
    for module in found:
        module.enabled = False
    try:
        yield
    finally:
        for module in found:
            module.enabled = True


def _with_gradient(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
    return output.requires_grad_() if torch.is_grad_enabled() else output
