"""A model's directory as another one whose weights are whole, and in one precision: what a trainer would compute with.

Also of a GGUF inside an installed package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from common.mistake import Wrong
from core.config.hub import cache_folder, fetch_command, in_cache, on_hub
from core.pretrained.locate import locate
from core.pretrained.quantised import QuantisedWeight
from core.pretrained.stored_values import TORCH, whole_values
from core.pretrained.weight_files import fitting_tensors, weight_files
from launchers.transfer.new_directory import (
    NO_ROOM,
    complete_or_nothing,
    no_room,
    refuse_taken,
    shape_of,
    write_model,
)
from modelcfg import ModelShape, hf_tensors


@dataclass(frozen=True)
class Converted:
    """What was written. `dtype` is that of the weights, as config.json names it; `num_quantised` weights were so."""

    directory: Path
    dtype: str
    num_quantised: int
    num_bytes: int


class ModelDirectory:
    """The weights of a directory, which may be quantised."""

    def __init__(self, directory: Path, shape: ModelShape) -> None:
        """Read the headers.

        Raises:
            Wrong: the directory does not hold a model of this shape.
        """
        held = fitting_tensors(directory, shape)
        self._tensors = {name: held[name] for name in hf_tensors(shape)}
        self.num_quantised = sum(isinstance(tensor, QuantisedWeight) for tensor in self._tensors.values())

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the first weight that has one, bfloat16 where it is quantised."""
        return TORCH[next(iter(self._tensors.values())).dtype] if not self.num_quantised else torch.bfloat16

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight by name."""
        return ((name, whole_values(tensor)) for name, tensor in self._tensors.items())


def convert(
    source: str,
    out: Path,
    dtype: torch.dtype | None,
    *,
    verify: bool,
    told: Callable[[str], None] = lambda _: None,
    wrote: Callable[[int, int], None] = lambda _, __: None,
) -> Converted:
    """Write a model to a new folder.

    Args:
        source: as `model.path`: a directory, the hub's name of a model in its cache, or package:NAME.
        dtype: of the weights; None: as they are, bfloat16 where some are quantised.
        verify: read what was written, and compare each weight.
        told: called with what begins. wrote: called with parameters written so far, and all.
    Raises:
        Wrong: the place is taken or too small; the source is no model that can be read.
    """
    out = out.absolute()
    refuse_taken(out)
    directory = _directory(source)
    shape = shape_of(directory)
    model = ModelDirectory(directory, shape)
    dtype = dtype or model.dtype
    try:
        with complete_or_nothing(out) as unfinished:
            told(f"writing {out}")
            write_model(model, unfinished, directory, shape, dtype, verify=verify, told=told, wrote=wrote)
            num_bytes = sum(file.stat().st_size for file in weight_files(unfinished))
    except OSError as error:
        if error.errno in NO_ROOM:
            raise no_room(out) from error
        raise
    return Converted(out, str(dtype).removeprefix("torch."), model.num_quantised, num_bytes)


def _directory(source: str) -> Path:
    """The folder that a source means; one that is here comes before a name of the hub."""
    wanted = "a model's directory, the name of one in the hub's cache, or package:NAME"
    if not Path(source).exists() and on_hub(source, "model"):
        cached = in_cache(source, "model")
        if cached is None:
            found = f"no folder {source}, and no such model in the hub's cache {cache_folder()}"
            raise Wrong(found, wanted, f"fetch it, where there is internet: {fetch_command(source, 'model')}")
        return cached
    try:
        return locate(source)
    except ValueError as error:
        raise Wrong(f"no model at {source}", wanted, "correct the path, or fetch the model first") from error
