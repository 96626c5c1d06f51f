"""This rank's part of the policy's weights: what is trained, what is not, and what others are to have of both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from core.config.sections.lora import LoraConfig
from core.megatron.model import PolicyModel
from core.megatron.parallel import Layout
from core.megatron.state import hf
from core.megatron.state.adapters import MergedWeights, is_adapter
from core.megatron.state.flat import move_into_flat
from modelcfg import ModelShape


class PolicyWeights:
    """The tensors of a model that has been built, with few large buffers under them.

    Attributes:
        parameters: name -> tensor.
        fixed: name -> what no gradient trains and is no parameter.
        trained: the parameters with a gradient.
        base: those without; where adapters are trained, all of the model.
    """

    def __init__(
        self, model: PolicyModel, shape: ModelShape, layout: Layout, lora: LoraConfig | None, *, shared_out: bool
    ) -> None:
        """Move the model's tensors into flat buffers.

        Args:
            shared_out: the optimiser's state is, over ranks: the optimiser brings a buffer of what is trained.
        """
        self._shape, self._layout, self._lora = shape, layout, lora
        self.parameters = dict(model.named_parameters())
        self.trained = [parameter for parameter in self.parameters.values() if parameter.requires_grad]
        self.base = [parameter for parameter in self.parameters.values() if not parameter.requires_grad]
        if not shared_out:
            move_into_flat(self.trained)
        move_into_flat(self.base)
        self.fixed = dict(model.fixed_tensors())

    def load(self, model_dir: Path) -> None:
        """Read a HuggingFace directory; adapters stay as they were made. Collective: all trainer ranks."""
        own = {name: parameter for name, parameter in self.parameters.items() if not is_adapter(name)}
        hf.load_hf(own | self.fixed, self._shape, self._layout, model_dir)

    def out(self) -> Mapping[str, Tensor]:
        """What others are to have of this rank: adapters are merged."""
        own = self.parameters | self.fixed
        if self._lora is None:
            return own
        layout = self._layout
        return MergedWeights(own, self._shape, self._lora, layout.tp_size, layout.stages, layout.pp_rank)
