"""Outputs that a layer's backward pass makes again instead of keeping them: norms, and the gated activation.

Both are cheap to make, and what they are made of is kept anyway. Whoever saves such an output for its backward pass, a
linear layer or a router, gets a recipe in its place. Megatron has the like for norms (`recompute_modules: layernorm`),
which wants transformer engine, and nothing for a dense activation.
Source: selective recompute, arXiv:2205.05198, section 5, and torch's `saved_tensors_hooks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor

from core.megatron.layers.routed_layer import RoutedLayer


class Recipe(NamedTuple):
    """What stands in a saved tensor's place."""

    function: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    shape: torch.Size


class LayerOutputs:
    """The outputs of one pass through a layer that can be made again; they are held until the pass is over."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int, int], tuple[Tensor, Callable[..., Tensor], tuple[Tensor, ...]]] = {}

    def note(self, output: Tensor, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
        """Keep how an output was made."""
        self._made[_place(output)] = output, function, tuple(one.detach() for one in inputs)

    def forget(self) -> None:
        """Hold none of them any longer."""
        self._made.clear()

    def pack(self, saved: Tensor) -> Tensor | Recipe:
        """The recipe of a tensor that is one of the outputs, or a view of all of it; others as they are."""
        found = self._made.get(_place(saved))
        if found is None or saved.dtype != found[0].dtype or not saved.is_contiguous():
            return saved
        return Recipe(*found[1:], saved.shape)


def _place(tensor: Tensor) -> tuple[int, int, int]:
    """What an output has in common with views of all of it, as long as nobody writes into it."""
    return tensor.data_ptr(), tensor.numel(), tensor._version


_OUTPUTS: ContextVar[LayerOutputs | None] = ContextVar("outputs of the layer that is computed", default=None)


def made_again(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`function(*inputs)`, made again in the backward pass where the layer is one that does so.

    Args:
        function: gives the same bits for the same inputs.
    """
    output = function(*inputs)
    outputs = _OUTPUTS.get()
    if outputs is not None and torch.is_grad_enabled():
        outputs.note(output, function, inputs)
    return output


def _unpack(packed: Tensor | Recipe) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    with torch.no_grad():
        return packed.function(*packed.inputs).view(packed.shape)


@contextmanager
def _making_again() -> Iterator[None]:
    outputs = LayerOutputs()
    token = _OUTPUTS.set(outputs)
    try:
        with torch.autograd.graph.saved_tensors_hooks(outputs.pack, _unpack):
            yield
    finally:
        _OUTPUTS.reset(token)
        outputs.forget()  # autograd's graph holds on to the hook, and so to these


class LeanLayer(TransformerLayer):  # type: ignore[misc]
    """Megatron's layer, which keeps neither the outputs of its norms nor those of its activation."""

    def forward(self, *arguments: Any, **options: Any) -> tuple[Tensor, Any]:
        """([T, 1, H], what Megatron's layer gives beside it)."""
        with _making_again():
            result: tuple[Tensor, Any] = super().forward(*arguments, **options)
        return result


class LeanRoutedLayer(LeanLayer, RoutedLayer):
    """The same of a layer with experts."""
