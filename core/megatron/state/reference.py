"""The model that a KL is taken to: weights beside the policy's, with which the policy's model computes for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from core.megatron.parallel import Layout
from core.megatron.state import checkpoint, hf
from core.megatron.state.staged import Write
from modelcfg import ModelShape

FOLDER = "reference"  # in the folder of the policy's checkpoint


class Reference:
    """This rank's part of the reference model. It begins as the policy, or as files of its own.

    Attributes:
        weights: name -> tensor, of each of its parameters.
    """

    def __init__(self, parameters: Mapping[str, Tensor], fixed: Mapping[str, Tensor], interval: int | None) -> None:
        """Copy the policy.

        Args:
            parameters: the policy's.
            fixed: what of the policy is no parameter.
            interval: updates after which it becomes what the policy is then; None: it stays.
        """
        self._parameters, self._own = dict(parameters), dict(parameters) | dict(fixed)
        self.weights = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        self._fixed = {name: tensor.clone() for name, tensor in fixed.items()}
        self._interval, self._age = interval, 0

    def read(self, directory: Path, shape: ModelShape, layout: Layout) -> None:
        """Take a HuggingFace directory's weights. Collective: all trainer ranks."""
        hf.load_hf(self.weights | self._fixed, shape, layout, directory)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the policy's model compute with these weights inside; nothing is copied."""
        own = {name: tensor.data for name, tensor in self._own.items()}
        for name, tensor in self._own.items():
            tensor.data = (self.weights | self._fixed)[name]
        try:
            yield
        finally:
            for name, tensor in self._own.items():
                tensor.data = own[name]

    def follow(self) -> bool:
        """Count an update of the policy; where its time has come, become what the policy is now, and say so.

        Collective: none; all ranks count alike.
        """
        self._age += 1
        if self._interval is None or self._age < self._interval:
            return False
        for name, parameter in self._parameters.items():
            self.weights[name].copy_(parameter.detach())
        self._age = 0
        return True

    def save(self, directory: Path, model: nn.Module, layout: Layout, *, apart: bool) -> list[Write]:
        """Stage it for the folder of the policy's checkpoint; one that stays is in files already.

        Args and Collective: as of `checkpoint.save`. Returns: the writing, if there is any.
        """
        if self._interval is None:
            return []
        with self.in_place():
            return [checkpoint.save_weights(directory / FOLDER, model, layout, self._age, apart=apart)]

    def load(self, directory: Path, model: nn.Module) -> None:
        """Take up what `save` wrote; nothing where it had stayed until then. Collective: all trainer ranks."""
        if self._interval is not None and (directory / FOLDER).is_dir():
            with self.in_place():
                self._age = checkpoint.load_weights(directory / FOLDER, model)
