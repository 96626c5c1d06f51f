"""Which Megatron parameter holds which HuggingFace tensors, and how it is split over tensor- and expert-parallel ranks.

Pure planning and slicing: no process group, no files. Legend: H hidden, d head dim, n query heads per group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from modelcfg import ModelShape
from modelcfg.shards import EXPERTS

Kind = Literal["replicated", "vocab", "columns", "gate_up", "qkv"]


@dataclass(frozen=True)
class Entry:
    """One Megatron parameter. `local` is its name on pipeline stage `stage`; `hf` the tensors that it holds.

    An expert's parameter is another expert's on every expert-parallel rank: `hf` has the tensors of all of them, rank
    by rank, and `of_rank` what one of them holds.
    """

    stage: int
    local: str
    hf: tuple[str, ...]
    kind: Kind
    expert_ranks: int = 0  # 0: the same on all ranks

    def of_rank(self, rank: int) -> Entry:
        """The entry as expert-parallel rank `rank` holds it."""
        if not self.expert_ranks:
            return self
        width = len(self.hf) // self.expert_ranks
        return Entry(self.stage, self.local, self.hf[rank * width : (rank + 1) * width], self.kind)


# suffix in Megatron's layer, suffixes in HuggingFace's layer, kind
_LAYER: tuple[tuple[str, tuple[str, ...], Kind], ...] = (
    ("input_layernorm.weight", ("input_layernorm.weight",), "replicated"),
    ("self_attention.linear_qkv.weight", tuple(f"self_attn.{x}_proj.weight" for x in "qkv"), "qkv"),
    ("self_attention.linear_qkv.bias", tuple(f"self_attn.{x}_proj.bias" for x in "qkv"), "qkv"),
    ("self_attention.q_layernorm.weight", ("self_attn.q_norm.weight",), "replicated"),
    ("self_attention.k_layernorm.weight", ("self_attn.k_norm.weight",), "replicated"),
    ("self_attention.linear_proj.weight", ("self_attn.o_proj.weight",), "columns"),
    ("pre_mlp_layernorm.weight", ("post_attention_layernorm.weight",), "replicated"),
)
_FEED_FORWARD: tuple[tuple[str, tuple[str, ...], Kind], ...] = (
    ("linear_fc1.weight", ("gate_proj.weight", "up_proj.weight"), "gate_up"),
    ("linear_fc2.weight", ("down_proj.weight",), "columns"),
)
ROUTER = "mlp.router.weight"
EMBEDDING = "model.embed_tokens.weight"


def export_entries(shape: ModelShape, num_stages: int, expert_ranks: int = 1) -> list[Entry]:
    """Every HuggingFace tensor once, in HuggingFace's order; experts in that of their places on a rank."""
    per_stage = shape.num_layers // num_stages
    entries = [Entry(0, "embedding.word_embeddings.weight", (EMBEDDING,), "vocab")]
    for layer in range(shape.num_layers):
        stage, local = divmod(layer, per_stage)
        entries += [
            Entry(stage, f"decoder.layers.{local}.{suffix}", tuple(f"model.layers.{layer}.{x}" for x in hf), kind)
            for suffix, hf, kind in _LAYER
            if (shape.qkv_bias or not suffix.endswith("bias")) and (shape.qk_norm or not _is_qk_norm(suffix))
        ]
        entries += _feed_forward(shape, stage, f"decoder.layers.{local}.", f"model.layers.{layer}.", expert_ranks)
    last = num_stages - 1
    entries.append(Entry(last, "decoder.final_layernorm.weight", ("model.norm.weight",), "replicated"))
    if not shape.tied_embeddings:
        entries.append(Entry(last, "output_layer.weight", ("lm_head.weight",), "vocab"))
    return entries


def _feed_forward(shape: ModelShape, stage: int, local: str, hf: str, expert_ranks: int) -> list[Entry]:
    """Names of one layer's feed-forward, or of its router and experts."""
    if not shape.num_experts:
        return [
            Entry(stage, f"{local}mlp.{suffix}", tuple(f"{hf}mlp.{x}" for x in tensors), kind)
            for suffix, tensors, kind in _FEED_FORWARD
        ]
    per_rank = shape.num_experts // expert_ranks
    entries = [Entry(stage, local + ROUTER, (f"{hf}mlp.gate.weight",), "replicated")]
    for place in range(per_rank):
        experts = range(place, shape.num_experts, per_rank)  # one of each rank
        entries += [
            Entry(
                stage,
                f"{local}mlp.{EXPERTS}{place}.{suffix}",
                tuple(f"{hf}mlp.experts.{expert}.{x}" for expert in experts for x in tensors),
                kind,
                expert_ranks,
            )
            for suffix, tensors, kind in _FEED_FORWARD
        ]
    return entries


def load_entries(
    shape: ModelShape, num_stages: int, stage: int, expert_ranks: int = 1, expert_rank: int = 0
) -> list[Entry]:
    """Every parameter of one rank; with tied embeddings the last of several stages holds a second copy."""
    everywhere = export_entries(shape, num_stages, expert_ranks)
    entries = [entry.of_rank(expert_rank) for entry in everywhere if entry.stage == stage]
    if shape.tied_embeddings and num_stages > 1 and stage == num_stages - 1:
        entries.append(Entry(stage, "output_layer.weight", (EMBEDDING,), "vocab"))
    return entries


def split(entry: Entry, read: Callable[[str, slice, slice], Tensor], shape: ModelShape, rank: int, size: int) -> Tensor:
    """The part of a parameter that tensor-parallel rank `rank` of `size` holds.

    Args:
        read: gives `tensor[rows]` or, for a matrix, `tensor[rows, columns]` of a HuggingFace tensor; only what is
            needed is asked for.
    """
    everything = slice(None)
    if entry.kind == "replicated":
        return read(entry.hf[0], everything, everything)
    if entry.kind == "vocab":
        rows = -(-shape.vocab_size // size)
        found = read(entry.hf[0], slice(rank * rows, min((rank + 1) * rows, shape.vocab_size)), everything)
        return functional.pad(found, (0, 0, 0, rows - found.shape[0]))
    if entry.kind == "columns":
        is_output = entry.local.endswith("linear_proj.weight")
        width = (shape.query_size if is_output else shape.ffn_hidden_size) // size
        return read(entry.hf[0], everything, slice(rank * width, (rank + 1) * width))
    if entry.kind == "gate_up":
        width = shape.ffn_hidden_size // size
        return torch.cat([read(name, slice(rank * width, (rank + 1) * width), everything) for name in entry.hf])
    if shape.num_query_groups % size:  # a group is spread over ranks: cut the assembled rows
        return _interleave(entry, read, shape, 0, shape.num_query_groups).chunk(size)[rank]
    groups = shape.num_query_groups // size
    return _interleave(entry, read, shape, rank * groups, (rank + 1) * groups)


def join(entry: Entry, parts: Sequence[Tensor], shape: ModelShape) -> list[tuple[str, Tensor]]:
    """The HuggingFace tensors from the parts of all tensor-parallel ranks, in rank order."""
    if entry.kind == "replicated":
        return [(entry.hf[0], parts[0])]
    if entry.kind == "columns":
        return [(entry.hf[0], _cat(parts, 1))]
    if entry.kind == "vocab":
        return [(entry.hf[0], _cat(parts, 0)[: shape.vocab_size])]
    if entry.kind == "gate_up":
        halves = [part.chunk(2) for part in parts]
        return [(name, _cat([pair[i] for pair in halves], 0)) for i, name in enumerate(entry.hf)]
    rows = _cat(parts, 0)
    grouped = rows.view(shape.num_query_groups, -1, *rows.shape[1:])  # [groups, (n + 2) d, ...]
    d, n = shape.head_dim, shape.num_attention_heads // shape.num_query_groups
    return [
        (name, part.flatten(0, 1)) for name, part in zip(entry.hf, torch.split(grouped, [n * d, d, d], 1), strict=True)
    ]


def full_shapes(entry: Entry, shape: ModelShape) -> list[tuple[int, ...]]:
    """Shape of each HuggingFace tensor of the entry, for ranks of other stages that only receive it."""
    hidden = shape.hidden_size
    if entry.kind == "vocab":
        return [(shape.vocab_size, hidden)]
    if entry.kind == "columns":
        return [(hidden, shape.query_size if entry.local.endswith("linear_proj.weight") else shape.ffn_hidden_size)]
    if entry.kind == "gate_up":
        return [(shape.ffn_hidden_size, hidden)] * 2
    if entry.kind == "replicated":
        is_router = entry.local.endswith(ROUTER)
        return [(shape.num_experts, hidden) if is_router else (shape.head_dim if _is_qk_norm(entry.local) else hidden,)]
    rows = (shape.query_size, shape.key_value_size, shape.key_value_size)
    return [(r,) if entry.local.endswith("bias") else (r, hidden) for r in rows]


def _interleave(
    entry: Entry, read: Callable[[str, slice, slice], Tensor], shape: ModelShape, first: int, last: int
) -> Tensor:
    """Rows of query groups first..last in Megatron's order: the group's query heads, its key, its value."""
    d, n = shape.head_dim, shape.num_attention_heads // shape.num_query_groups
    parts = []
    for name, heads in zip(entry.hf, (n, 1, 1), strict=True):
        rows = read(name, slice(first * heads * d, last * heads * d), slice(None))
        parts.append(rows.view(last - first, heads * d, *rows.shape[1:]))
    return torch.cat(parts, dim=1).flatten(0, 1)


def _cat(parts: Sequence[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)


def _is_qk_norm(name: str) -> bool:
    return name.endswith(("q_layernorm.weight", "k_layernorm.weight"))
