"""Low-rank adapters beside the linear layers of a model whose own weights stay as they are.

A layer that computes x W^T gives x W^T + alpha / r (x A^T) B^T. Only A and B are trained, and B begins at zero, so that
the model is its base at first. Where a layer is cut over tensor-parallel ranks, one side of its adapter is, too: what
the ranks hand each other is between the sides, r numbers of a token. Source: LoRA, arXiv:2106.09685; A begins as in
PEFT. Left out: dropout. Legend: T row tokens, I inputs and O outputs of a layer on this rank, r rank.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from torch import Tensor

from core.config.sections.lora import LoraConfig
from core.megatron.layers.frozen import begin_with_gradient
from core.megatron.layers.whole_linear import WholeLinear
from modelcfg import ModelShape
from modelcfg.adapters import Adapted, adapted_layers
from modelcfg.weights import Kind


class Adapter(torch.nn.Module):
    """What one projection adds."""

    def __init__(self, config: Any, adapted: Adapted, place: int, lora: LoraConfig) -> None:
        super().__init__()
        self.lora_A = WholeLinear(config, adapted.inputs, lora.rank)
        self.lora_B = WholeLinear(config, lora.rank, adapted.outputs(place))
        self.scale, self.between = lora.scale, _between(config, adapted.cuts)
        self.parts = config.tensor_model_parallel_size if adapted.cuts[0] == "columns" else 1  # of A
        for side, cut in zip((self.lora_A, self.lora_B), adapted.cuts, strict=True):
            _tell_megatron(side.weight, cut, config)

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, 1, O] of [T, 1, I]; under sequence parallel with the tokens of what the layer reads and of what it gives.

        Collective: tensor-parallel ranks, where there are some.
        """
        added: Tensor = self.lora_B(self.between(self.lora_A(hidden) * self.scale))
        return added

    @torch.no_grad()
    def begin(self, seed: int, name: str) -> None:
        """Fill A by seed and name alone, so that every rank and layout has the same, and B with zeros."""
        digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        weight, part = self.lora_A.weight, 0 if self.parts == 1 else parallel_state.get_tensor_model_parallel_rank()
        drawn = torch.empty(len(weight), weight.shape[1] * self.parts)
        torch.nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        weight.copy_(drawn.chunk(self.parts, 1)[part])
        self.lora_B.weight.zero_()


class LayerAdapters(torch.nn.ModuleDict):
    """The adapters of one of Megatron's linear layers, by what PEFT calls the projections."""

    def __init__(self, config: Any, adapted: Adapted, lora: LoraConfig) -> None:
        super().__init__({adapted.name(place): Adapter(config, adapted, place, lora) for place in adapted.chosen})
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
        for whole in adapted_layers(shape, number, lora.targets):
            adapted = whole.on_rank(model.config.tensor_model_parallel_size)
            linear = layer.get_submodule(adapted.local)
            linear.adapters = LayerAdapters(model.config, adapted, lora)
            linear.register_forward_hook(linear.adapters.after)
            for place in adapted.chosen:
                linear.adapters[adapted.name(place)].begin(seed, f"{number} {adapted.hf[place]}")
    if model.pre_process:
        begin_with_gradient(model)


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


def _between(config: Any, cuts: tuple[Kind, Kind]) -> Callable[[Tensor], Tensor]:
    """What the ranks do with what A gives: add up their parts of it, or see that all of it reaches every part of B.

    So the sums over ranks, forward and backward, are those of Megatron's layer beside it.
    """
    if config.tensor_model_parallel_size == 1 or cuts == ("replicated", "replicated"):
        return torch.nn.Identity()
    if config.sequence_parallel:
        add_up, spread = reduce_scatter_to_sequence_parallel_region, gather_from_sequence_parallel_region
    else:
        add_up, spread = reduce_from_tensor_model_parallel_region, copy_to_tensor_model_parallel_region
    chosen: Callable[[Tensor], Tensor] = add_up if cuts[0] == "columns" else spread
    return chosen


def _tell_megatron(weight: torch.nn.Parameter, cut: Kind, config: Any) -> None:
    """What a weight is to it: a part, each of which counts in the norm of the gradients; or the same on every rank,
    where under sequence parallel each has the gradient of some tokens.
    """
    if cut == "replicated":
        weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
    else:
        halves = 2 if cut == "gate_up" else 1  # each of which is cut
        set_tensor_model_parallel_attributes(weight, is_parallel=True, dim=int(cut == "columns"), stride=halves)
