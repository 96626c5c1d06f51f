"""HuggingFace checkpoints in and out of a Megatron model that is split over ranks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor

from core.megatron.parallel import Layout
from core.megatron.state.buckets import in_buckets
from core.megatron.state.gather import NamedTensor, gathered
from core.megatron.state.names import export_entries, load_entries, split
from core.megatron.state.stored import StoredModel
from core.pretrained.header import StoredTensor
from core.pretrained.model_writer import ModelWriter, written_model
from core.pretrained.quantised import QuantisedWeight
from core.pretrained.stored_values import stored_values
from core.pretrained.weight_files import carried_tensors, fitting_tensors
from modelcfg import ModelShape, fixed_tensors, hf_tensors
from modelcfg.weights import part_of


def load_hf(
    parameters: Mapping[str, Tensor],
    shape: ModelShape,
    layout: Layout,
    model_dir: Path,
    without: Collection[str] = (),
) -> None:
    """Fill this rank's parameters from safetensors files, reading only the slices that it holds.

    Args:
        parameters: the stage's named parameters, and what is fixed; each must be met exactly once.
        without: names of parameters of the shape that this model has not.
    Raises:
        ValueError: the directory does not hold the weights of this shape, all of them and no others (`weight_files`),
            or they are not those of the parameters.
    Collective: none.
    """
    left = dict(parameters)
    with ExitStack() as stack, torch.no_grad():
        reader = _Reader(model_dir, shape, stack)
        for entry in load_entries(shape, layout.stages, layout.pp_rank, layout.ep_size, layout.ep_rank):
            if entry.local in without:
                continue
            parameter = left.pop(entry.local)
            cut = (layout.etp_rank, layout.etp_size) if entry.of_expert else (layout.tp_rank, layout.tp_size)
            found = split(entry, reader.read, shape, *cut)
            if found.shape != parameter.shape:
                raise ValueError(
                    f"{model_dir}: {', '.join(entry.hf)} gives {tuple(found.shape)} for {entry.local}, wanted "
                    f"{tuple(parameter.shape)}: the checkpoint is not of shape {shape.name}"
                )
            parameter.copy_(found)
    if left:
        names = ", ".join(left)
        raise ValueError(f"{model_dir}: nothing found for {names}: the checkpoint is not of shape {shape.name}")


def named_buckets(
    parameters: Mapping[str, Tensor], shape: ModelShape, layout: Layout, max_bytes: int, *, fixed: bool = True
) -> Iterator[list[NamedTensor]]:
    """All weights as full tensors under HuggingFace names, in a fixed order, in buckets of at most `max_bytes`.

    A tensor larger than `max_bytes` gets a bucket of its own, and what engines take only at once is in one. Tensors may
    share memory with the parameters: use them before the next update. Without `fixed`, of parameters alone.
    Collective: every trainer rank must iterate to the end, and each gets every tensor.
    """
    yield from in_buckets(_named_tensors(parameters, shape, layout, max_bytes, fixed=fixed), max_bytes)


def _named_tensors(
    parameters: Mapping[str, Tensor], shape: ModelShape, layout: Layout, max_bytes: int, *, fixed: bool = True
) -> Iterator[NamedTensor]:
    """The tensors of `named_buckets`, one by one; about `max_bytes` are gathered at a time. Collective, likewise."""
    entries = [entry for entry in export_entries(shape, layout.stages, layout.ep_size) if fixed or not entry.fixed]
    return gathered(entries, parameters, shape, layout, max_bytes)


def save_hf(
    parameters: Mapping[str, Tensor], shape: ModelShape, layout: Layout, source_dir: Path, directory: Path
) -> None:
    """Write a HuggingFace directory: weights in the trainer's precision, config and tokenizer files from `source_dir`,
    and what tensors that has beside the model.

    Collective: every trainer rank must call; global rank 0 writes. No rank holds more than a parameter at a time.
    """
    dtype = next(iter(parameters.values())).dtype
    with ExitStack() as stack:
        writer = None
        if dist.get_rank() == 0:
            writer = stack.enter_context(_new_model(directory, source_dir, shape, dtype))
        for name, tensor in _named_tensors(parameters, shape, layout, max_bytes=1):
            if writer is not None:
                # numpy gives the writer its bytes, and a storage that numpy has seen can no longer be parked
                writer.write(name, tensor.clone() if tensor.device.type == "cpu" else tensor)
    dist.barrier(layout.control)


def save_stored(stored: StoredModel, shape: ModelShape, source_dir: Path, directory: Path) -> None:
    """Write the directory that `save_hf` wrote when the checkpoint was saved, from that.

    Collective: none. No more than a parameter at a time is held.
    Raises:
        Wrong: the checkpoint has not all of the model.
    """
    with _new_model(directory, source_dir, shape, stored.dtype) as writer:
        for name, tensor in stored.tensors():
            writer.write(name, tensor)


def _new_model(
    directory: Path, source_dir: Path, shape: ModelShape, dtype: torch.dtype
) -> AbstractContextManager[ModelWriter]:
    carried = carried_tensors(source_dir, shape)
    return written_model(directory, source_dir, hf_tensors(shape), dtype, fixed_tensors(shape), carried)


class _Reader:
    """Lazy slices of the tensors of a HuggingFace directory, each of the shape that the model has."""

    def __init__(self, model_dir: Path, shape: ModelShape, stack: ExitStack) -> None:
        tensors = fitting_tensors(model_dir, shape)
        self._quantised = {name: one for name, one in tensors.items() if isinstance(one, QuantisedWeight)}
        opened = {
            file: stack.enter_context(safe_open(file, framework="pt")) for file in {x.file for x in tensors.values()}
        }
        held = {file: set(one.keys()) for file, one in opened.items()}
        self._files = {name: opened[one.file] for name, one in tensors.items() if name in held[one.file]}
        self._parts = {  # of a tensor with all experts of a layer
            name: one for name, one in tensors.items() if isinstance(one, StoredTensor) and name not in self._files
        }

    def read(self, name: str, rows: slice, columns: slice) -> Tensor:
        name, expert = part_of(name)
        if expert is not None:
            return self._read(name, slice(expert, expert + 1), slice(None))[0][rows]
        return self._read(name, rows, columns)

    def _read(self, name: str, rows: slice, columns: slice) -> Tensor:
        if name in self._quantised:
            return self._quantised[name].values(rows, columns)
        if name in self._parts:
            part = self._parts[name]
            return stored_values(part, range(part.shape[0])[rows])[:, columns]
        view = self._files[name].get_slice(name)
        result: Tensor = view[rows] if columns == slice(None) else view[rows, columns]
        return result
