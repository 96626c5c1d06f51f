"""Adapters out of a trainer's checkpoint, as they are or merged into the model's files, without Megatron or a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from core.config.sections.lora import LoraConfig
from core.megatron.layers.merging import merged
from core.megatron.state.adapters import PEFT, adapter_entries
from core.megatron.state.names import join
from core.megatron.state.stored import StoredModel
from core.pretrained.stored_values import whole_values
from core.pretrained.weight_files import fitting_tensors
from modelcfg import ModelShape, fixed_tensors, hf_tensors
from modelcfg.adapters import SIDES, adapted_layers


def stored_model(folder: Path, shape: ModelShape, lora: LoraConfig | None, base: Path) -> StoredModel:
    """The model in a checkpoint's folder, of a run with adapters merged into those of `base`."""
    return StoredModel(folder, shape) if lora is None else StoredAdapters(folder, shape, lora, base)


class StoredAdapters(StoredModel):
    """The model of a run that trains adapters: the checkpoint has these, the model's directory the rest."""

    def __init__(self, folder: Path, shape: ModelShape, lora: LoraConfig, base: Path) -> None:
        """Read what the files hold.

        Args:
            base: the directory of the model that the run has trained adapters of.
        Raises:
            OSError: they cannot be read.
            Wrong: the base is no model of this shape.
        """
        super().__init__(folder, shape)
        self._lora = lora
        self._base = fitting_tensors(base, shape)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Precision of the adapters, and so of the model that they were trained with."""
        return self.read(adapter_entries(self._shape, self._lora)[0]).dtype

    @property
    def targets(self) -> list[str]:
        """PEFT's names of the layers that have an adapter."""
        layers = (adapted_layers(self._shape, number, self._lora.targets) for number in range(self._shape.num_layers))
        return sorted({one.name(place) for layer in layers for one in layer for place in one.chosen})

    @cached_property
    def adapters(self) -> dict[str, Tensor]:
        """Every A and B under PEFT's names.

        Raises:
            Wrong: one is not there.
        """
        entries = adapter_entries(self._shape, self._lora)
        return dict(pair for entry in entries for pair in join(entry, [self.read(entry)], self._shape))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of a HuggingFace checkpoint by name, adapters merged as the weight sync merges them."""
        fixed = fixed_tensors(self._shape)
        for name in hf_tensors(self._shape):
            weight = whole_values(self._base[name]).to(torch.float32 if name in fixed else self.dtype)
            module = PEFT + name.removesuffix(".weight")
            sides = [self.adapters.get(f"{module}.{side}.weight") for side in SIDES]
            lora_a, lora_b = sides
            if lora_a is not None and lora_b is not None:
                weight = merged(weight, lora_a, lora_b, self._lora.scale)
            yield name, weight
