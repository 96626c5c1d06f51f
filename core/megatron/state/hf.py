"""HuggingFace checkpoints in and out of a Megatron model that is split over ranks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor

from core.megatron.parallel import Layout
from core.megatron.state.names import Entry, export_entries, join, load_entries, split
from core.pretrained.safetensors_file import save_tensors
from core.pretrained.weight_files import INDEX, WHOLE, fitting_tensors, write_index
from modelcfg import ModelShape

SHARD_BYTES = 4 * 2**30


def load_hf(parameters: Mapping[str, Tensor], shape: ModelShape, layout: Layout, model_dir: Path) -> None:
    """Fill this rank's parameters from safetensors files, reading only the slices that it holds.

    Args:
        parameters: the stage's named parameters; each must be met exactly once.
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
    parameters: Mapping[str, Tensor], shape: ModelShape, layout: Layout, max_bytes: int
) -> Iterator[list[tuple[str, Tensor]]]:
    """All weights as full tensors under HuggingFace names, in a fixed order, in buckets of at most `max_bytes`.

    A tensor larger than `max_bytes` gets a bucket of its own. Tensors may share memory with the parameters: use them
    before the next update.
    Collective: every trainer rank must iterate to the end, and each gets every tensor.
    """
    bucket: list[tuple[str, Tensor]] = []
    used = 0
    for entry in export_entries(shape, layout.pp_size, layout.ep_size):
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
    """Write a HuggingFace directory: weights in the trainer's precision, config and tokenizer files from `source_dir`.

    Collective: every trainer rank must call; global rank 0 writes.
    """
    writes = dist.get_rank() == 0
    weight_map: dict[str, str] = {}
    if writes:
        directory.mkdir(parents=True, exist_ok=True)
        _copy_side_files(source_dir, directory)
    total = 0
    for number, bucket in enumerate(named_buckets(parameters, shape, layout, SHARD_BYTES)):
        if writes:
            file = f"model-{number:05d}.safetensors"
            save_tensors(bucket, directory / file)
            weight_map.update(dict.fromkeys((name for name, _ in bucket), file))
            total += sum(t.numel() * t.element_size() for _, t in bucket)
    if writes:
        _name_files(directory, weight_map, total)
        _write_dtype(directory, next(iter(parameters.values())).dtype)
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
        sizes = [pair for held in ranks for pair in zip(held.hf, held.shapes, strict=True)]
        tensors = [(name, torch.empty(size, dtype=like.dtype, device=like.device)) for name, size in sizes]
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


def _copy_side_files(source_dir: Path, directory: Path) -> None:
    """Everything that is not a weight: config, generation config, tokenizer, chat template."""
    for path in source_dir.iterdir():
        if path.is_file() and path.suffix in (".json", ".txt", ".jinja", ".model") and path.name != INDEX:
            shutil.copyfile(path, directory / path.name)


def _name_files(directory: Path, weight_map: dict[str, str], total: int) -> None:
    """A single file needs no index."""
    if len(set(weight_map.values())) == 1:
        (directory / "model-00000.safetensors").rename(directory / WHOLE)
    else:
        write_index(directory, weight_map, total)


def _write_dtype(directory: Path, dtype: torch.dtype) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2))
