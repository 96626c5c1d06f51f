"""Full tensors of a Megatron model that is split over ranks, under HuggingFace names.

A model with experts has thousands of parameters, most of them small. Those that follow each other are gathered
together: one collective of some megabytes takes hardly longer than one of some kilobytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor

from common.units import MIB
from core.megatron.parallel import Layout
from core.megatron.state.names import Entry, join, whole_tensors
from modelcfg import ModelShape

TOGETHER_BYTES = 64 * MIB  # of full tensors

NamedTensor = tuple[str, Tensor]


def gathered(
    entries: Iterable[Entry], parameters: Mapping[str, Tensor], shape: ModelShape, layout: Layout, max_bytes: int
) -> Iterator[NamedTensor]:
    """The full tensors of all entries, in their order, on every rank. They may share memory with the parameters.

    Args:
        max_bytes: at most this is gathered at a time, or one entry; a tensor of all experts is put together of them.
    Collective: every trainer rank must iterate to the end.
    """
    return whole_tensors(_of_entries(entries, parameters, shape, layout, max_bytes), shape)


def _of_entries(
    entries: Iterable[Entry], parameters: Mapping[str, Tensor], shape: ModelShape, layout: Layout, max_bytes: int
) -> Iterator[NamedTensor]:
    like = next(iter(parameters.values()))
    for together in _runs(entries, like.element_size(), min(max_bytes, TOGETHER_BYTES)):
        if together[0].stage == layout.pp_rank:
            tensors = _of_stage(together, parameters, shape, layout)
        else:
            tensors = [
                (name, torch.empty(size, dtype=_dtype(entry, like), device=like.device))
                for entry in together
                for name, size in zip(entry.hf, entry.shapes, strict=True)
            ]
        if layout.pp_size > 1:
            tensors = _of_all_stages(tensors, together[0].stage, layout)
        yield from tensors


def _runs(entries: Iterable[Entry], element_size: int, max_bytes: int) -> Iterator[list[Entry]]:
    """Entries that follow each other, of one stage and dtype, with at most `max_bytes` of full tensors; or one."""
    run: list[Entry] = []
    used = 0
    for entry in entries:
        num_bytes = sum(map(prod, entry.shapes)) * element_size
        alike = run and (entry.stage, entry.fixed) == (run[0].stage, run[0].fixed)
        if run and not (alike and used + num_bytes <= max_bytes):
            yield run
            run, used = [], 0
        run.append(entry)
        used += num_bytes
    if run:
        yield run


def _of_stage(
    entries: Sequence[Entry], parameters: Mapping[str, Tensor], shape: ModelShape, layout: Layout
) -> list[NamedTensor]:
    """Gather over expert ranks what differs there, then over tensor ranks what is split."""
    of_experts = [place for place, entry in enumerate(entries) if entry.expert_ranks]
    own = [parameters[entry.local].detach() for entry in entries]
    everywhere = [[tensor] for tensor in own]  # of each entry: one for each expert rank
    for place, tensors in zip(of_experts, _exchange([own[i] for i in of_experts], layout.ep_group), strict=True):
        everywhere[place] = tensors
    held = [entry.of_rank(rank) for entry, ranks in zip(entries, everywhere, strict=True) for rank in range(len(ranks))]
    parts = [[tensor] for ranks in everywhere for tensor in ranks]
    for of_expert, group in ((False, layout.tp_group), (True, layout.etp_group)):
        cut = [place for place, entry in enumerate(held) if entry.is_cut and entry.of_expert == of_expert]
        for place, tensors in zip(cut, _exchange([parts[i][0] for i in cut], group), strict=True):
            parts[place] = tensors
    return [pair for entry, ranks in zip(held, parts, strict=True) for pair in join(entry, ranks, shape)]


def _exchange(tensors: Sequence[Tensor], group: dist.ProcessGroup) -> list[list[Tensor]]:
    """What every rank of the group has in the place of each tensor, in rank order."""
    size = dist.get_world_size(group)
    if size == 1 or not tensors:
        return [[tensor] for tensor in tensors]
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    all_flat = torch.empty(size * flat.numel(), dtype=flat.dtype, device=flat.device)
    dist.all_gather_into_tensor(all_flat, flat, group=group)
    of_ranks = [torch.split(one, [tensor.numel() for tensor in tensors]) for one in all_flat.chunk(size)]
    return [[ranks[place].view_as(tensor) for ranks in of_ranks] for place, tensor in enumerate(tensors)]


def _of_all_stages(tensors: Sequence[NamedTensor], stage: int, layout: Layout) -> list[NamedTensor]:
    """What the stage has, sent to the others."""
    source = dist.get_process_group_ranks(layout.pp_group)[stage]
    whole = [(name, tensor.contiguous()) for name, tensor in tensors]
    for _, tensor in whole:
        dist.broadcast(tensor, src=source, group=layout.pp_group)
    return whole


def _dtype(entry: Entry, like: Tensor) -> torch.dtype:
    return torch.float32 if entry.fixed else like.dtype
