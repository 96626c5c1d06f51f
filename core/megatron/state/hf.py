"""HuggingFace checkpoints in and out of a Megatron model that is split over ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor

from core.megatron.parallel import Layout
from core.megatron.state.names import Entry, export_entries, join, load_entries, split
from core.pretrained.model_writer import written_model
from core.pretrained.weight_files import carried_tensors, fitting_tensors
from modelcfg import ModelShape, fixed_tensors, hf_tensors


def load_hf(parameters: Mapping[str, Tensor], shape: ModelShape, layout: Layout, model_dir: Path) -> None:
    """Fill this rank's parameters from safetensors files, reading only the slices that it holds.

    Args:
        parameters: the stage's named parameters, and what is fixed; each must be met exactly once.
    Raises:
        ValueError: the directory does not hold the weights of this shape, all of them and no others (`weight_files`),
            or they are not those of the parameters.
    Collective: none.
    """
    left = dict(parameters)
    with ExitStack() as stack, torch.no_grad():
        reader = _Reader(model_dir, shape, stack)
        for entry in load_entries(shape, layout.pp_size, layout.pp_rank, layout.ep_size, layout.ep_rank):
            parameter = left.pop(entry.local)
            found = split(entry, reader.read, shape, layout.tp_rank, layout.tp_size)
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
) -> Iterator[list[tuple[str, Tensor]]]:
    """All weights as full tensors under HuggingFace names, in a fixed order, in buckets of at most `max_bytes`.

    A tensor larger than `max_bytes` gets a bucket of its own. Tensors may share memory with the parameters: use them
    before the next update. Without `fixed`, of parameters alone.
    Collective: every trainer rank must iterate to the end, and each gets every tensor.
    """
    bucket: list[tuple[str, Tensor]] = []
    used = 0
    for entry in export_entries(shape, layout.pp_size, layout.ep_size):
        if entry.fixed and not fixed:
            continue
        for name, tensor in _gather(entry, parameters, shape, layout):
            num_bytes = tensor.numel() * tensor.element_size()
            if bucket and used + num_bytes > max_bytes:
                yield bucket
                bucket, used = [], 0
            bucket.append((name, tensor))
            used += num_bytes
    if bucket:
        yield bucket


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
            carried = carried_tensors(source_dir, shape)
            model = written_model(directory, source_dir, hf_tensors(shape), dtype, fixed_tensors(shape), carried)
            writer = stack.enter_context(model)
        for bucket in named_buckets(parameters, shape, layout, max_bytes=1):
            if writer is not None:
                for name, tensor in bucket:
                    writer.write(name, tensor)
    dist.barrier(layout.control)


class _Reader:
    """Lazy slices of the tensors of a HuggingFace directory, each of the shape and precision that the model has."""

    def __init__(self, model_dir: Path, shape: ModelShape, stack: ExitStack) -> None:
        tensors = fitting_tensors(model_dir, shape)
        opened = {
            file: stack.enter_context(safe_open(file, framework="pt")) for file in {x.file for x in tensors.values()}
        }
        self._files = {name: opened[tensor.file] for name, tensor in tensors.items()}

    def read(self, name: str, rows: slice, columns: slice) -> Tensor:
        view = self._files[name].get_slice(name)
        result: Tensor = view[rows] if columns == slice(None) else view[rows, columns]
        return result


def _gather(
    entry: Entry, parameters: Mapping[str, Tensor], shape: ModelShape, layout: Layout
) -> list[tuple[str, Tensor]]:
    """The entry's full tensors on every rank: gathered over tensor or expert ranks, then sent to the other stages."""
    ranks = [entry.of_rank(rank) for rank in range(max(1, entry.expert_ranks))]
    if entry.stage == layout.pp_rank:
        own = parameters[entry.local].detach()
        parts = _all_experts(own, layout) if entry.expert_ranks else [own]
        of_all = zip(ranks, parts, strict=True)
        tensors = [pair for held, part in of_all for pair in join(held, _all_parts(held, part, layout), shape)]
    else:
        like = next(iter(parameters.values()))
        dtype = torch.float32 if entry.fixed else like.dtype
        sizes = [pair for held in ranks for pair in zip(held.hf, held.shapes, strict=True)]
        tensors = [(name, torch.empty(size, dtype=dtype, device=like.device)) for name, size in sizes]
    if layout.pp_size > 1:
        source = dist.get_process_group_ranks(layout.pp_group)[entry.stage]
        tensors = [(name, tensor.contiguous()) for name, tensor in tensors]
        for _, tensor in tensors:
            dist.broadcast(tensor, src=source, group=layout.pp_group)
    return tensors


def _all_parts(entry: Entry, own: Tensor, layout: Layout) -> list[Tensor]:
    if entry.kind == "replicated" or layout.tp_size == 1:
        return [own]
    return _from_all(own, layout.tp_size, layout.tp_group)


def _all_experts(own: Tensor, layout: Layout) -> list[Tensor]:
    """The experts that have this place on the expert-parallel ranks, in rank order."""
    return [own] if layout.ep_size == 1 else _from_all(own, layout.ep_size, layout.ep_group)


def _from_all(own: Tensor, size: int, group: dist.ProcessGroup) -> list[Tensor]:
    parts = [torch.empty_like(own) for _ in range(size)]
    dist.all_gather(parts, own.contiguous(), group=group)
    return parts
