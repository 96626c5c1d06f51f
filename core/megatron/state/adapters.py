"""Adapters of a model that is split over ranks: under PEFT's names, and merged into the weights that they are beside.

What a sync sends and a HuggingFace directory holds are merged weights, a parameter at a time; the base stays as it is.
Source of the names: PEFT's checkpoint format, https://huggingface.co/docs/peft/developer_guides/checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from core.config.sections.lora import LoraConfig
from core.megatron.layers.merging import merged_layer
from core.megatron.state.names import Entry
from modelcfg import ModelShape
from modelcfg.adapters import ADAPTERS, SIDES, Adapted, adapted_layers
from modelcfg.stages import ONE_STAGE, Stages
from modelcfg.table import layer_prefix

PEFT = "base_model.model."  # ahead of HuggingFace's names


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name, within its stage, belongs to an adapter."""
    return ADAPTERS in name


def adapter_entries(shape: ModelShape, lora: LoraConfig, stages: Stages = ONE_STAGE) -> list[Entry]:
    """Every tensor of the adapters once, as PEFT has it, layer by layer."""
    found = []
    for stage, layer, index in stages.places(shape.num_layers):
        begin, hf = f"decoder.layers.{index}.", PEFT + layer_prefix(shape, layer)
        for adapted in adapted_layers(shape, layer, lora.targets):
            for local, name, size, cut in adapted.shapes(lora.rank):
                found.append(Entry(stage, begin + local, (hf + name,), cut, (size,)))
    return found


class MergedWeights(Mapping[str, Tensor]):
    """This rank's parameters, adapters aside; those beside adapters are merged anew whenever they are asked for."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        shape: ModelShape,
        lora: LoraConfig,
        tensor_parallel: int,
        stages: Stages,
        stage: int,
    ) -> None:
        """Keep the parameters, which may change.

        Args:
            parameters: of the rank, adapters among them.
        """
        self._parameters, self._scale = parameters, lora.scale
        self._names = [name for name in parameters if not is_adapter(name)]
        self._adapted: dict[str, tuple[str, Adapted]] = {
            f"{local}.weight": (local, adapted.on_rank(tensor_parallel))
            for index, layer in enumerate(stages.layers(shape.num_layers)[stage])
            for adapted in adapted_layers(shape, layer, lora.targets)
            for local in (f"decoder.layers.{index}.{adapted.local}",)
        }

    def __getitem__(self, name: str) -> Tensor:
        weight = self._parameters[name].detach()
        if name not in self._adapted:
            return weight
        local, adapted = self._adapted[name]
        names = [f"{local}{ADAPTERS}{adapted.name(place)}" for place in adapted.chosen]
        sides = [tuple(self._parameters[f"{one}.{side}.weight"].detach() for side in SIDES) for one in names]
        return merged_layer(weight, adapted, [(a, b) for a, b in sides], self._scale)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
