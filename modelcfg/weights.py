"""Weights of a decoder as a table: for each Megatron parameter its HuggingFace tensors, their shapes and their cut.

A family (`modelcfg/families`) gives the table of one layer. What names, shards, sizes, loading, saving and syncing need
is read from it. The builders below make the lines that families have in common.
Legend: H hidden, d head dim, F width of a feed-forward or of an expert.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from modelcfg.shape import DeltaNet, LatentAttention, ModelShape

# how a parameter is cut over tensor-parallel ranks: not at all; rows of the vocabulary, rounded up; rows; columns; rows
# of gate and up, each on its own; rows of query, key and value, group by group; those of a layer with a state, in one
# tensor, key head by key head; and, not cut, how experts' files have them otherwise: rows as columns; that, or a
# vector, with gate and up by turns
Kind = Literal["replicated", "vocab", "rows", "columns", "gate_up", "qkv", "by_head", "turned", "by_turns"]
Part = Literal["embedding", "attention", "router", "feed-forward", "norms", "output"]

EMBEDDING = "embedding.word_embeddings.weight"
OUTPUT = "output_layer.weight"
EXPERTS = "experts.local_experts."  # in the names of their parameters
SHARED = "mlp.shared_experts"  # the feed-forward of all tokens beside them
PER_HEAD = ("ba", "b", "a")  # projections of a state that make no channels, but a number or two for each of its heads
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Weight:
    """One line of the table. Within a layer both names begin behind the layer's number.

    Attributes:
        local: Megatron's name. `{place}` is an expert's place among the experts of its rank.
        hf: HuggingFace's names of the tensors in it, in the order in which it holds them. `{expert}` is the number of
            the expert; in brackets behind the name it says that one tensor holds all experts, and this is a part of it.
        shapes: [rows, columns] or [numbers] of each of these tensors or parts, whole.
        part: the part of the model that it is counted as.
        fixed: loaded, saved and synced, but trained by no gradient, and float32 whatever the model's precision. It is
            counted as no parameter.
        stacked: name of a tensor with those of all experts, one after the other, which files may hold instead; empty:
            none.
        unpacked: a linear layer that publishers keep whole where they keep others in few bits, as routers are.
        side_by_side: rows of each of the projections in a single tensor, which an engine cuts one by one; empty: it
            cuts the tensor's rows as they are.
    """

    local: str
    hf: tuple[str, ...]
    kind: Kind
    shapes: tuple[tuple[int, ...], ...]
    part: Part
    fixed: bool = False
    stacked: str = ""
    unpacked: bool = False
    side_by_side: tuple[int, ...] = ()

    @property
    def of_expert(self) -> bool:
        """Whether each expert has one."""
        return "{place}" in self.local

    @property
    def is_part(self) -> bool:
        """Whether it is, in HuggingFace's files, a part of a tensor of all experts."""
        return self.hf[0].endswith("]")

    @property
    def numel(self) -> int:
        """Elements of the whole parameter."""
        return sum(map(prod, self.shapes))

    def numel_of_rank(self, tensor_parallel: int) -> int:
        """Elements on one of the tensor-parallel ranks; of an expert's, on one of those over which experts are cut."""
        if self.kind in ("replicated", "turned", "by_turns"):
            return self.numel
        if self.kind == "vocab":
            rows, columns = self.shapes[0]
            return -(-rows // tensor_parallel) * columns
        return self.numel // tensor_parallel


def part_of(name: str) -> tuple[str, int | None]:
    """Name of the tensor in the files and, where `name` is of a part, the number of the expert, its place there."""
    whole, bracket, expert = name.removesuffix("]").partition("[")
    return whole, int(expert) if bracket else None


def norm(local: str, hf: str, size: int, part: Part = "norms") -> Weight:
    """A norm's weight, on every rank."""
    return Weight(f"{local}.weight", (f"{hf}.weight",), "replicated", ((size,),), part)


def attention(shape: ModelShape) -> list[Weight]:
    """Projections of query, key, value and output; where the shape has them, biases, norms of two, and sinks."""
    hidden, rows = shape.hidden_size, (shape.query_size, shape.key_value_size, shape.key_value_size)
    gated = (rows[0] * (2 if shape.attention_gate else 1), *rows[1:])  # head by head what gates it behind its query
    local, hf = "self_attention.linear_qkv", tuple(f"self_attn.{x}_proj" for x in "qkv")
    weights, biases = tuple(f"{x}.weight" for x in hf), tuple(f"{x}.bias" for x in hf)
    table = [Weight(f"{local}.weight", weights, "qkv", tuple((r, hidden) for r in gated), "attention")]
    if shape.qkv_bias:
        table.append(Weight(f"{local}.bias", biases, "qkv", tuple((r,) for r in gated), "attention"))
    if shape.qk_norm:
        widths = rows[:2] if shape.qk_norm_whole else (shape.head_dim, shape.head_dim)
        table += [
            norm(f"self_attention.{x}_layernorm", f"self_attn.{x}_norm", width, "attention")
            for x, width in zip("qk", widths, strict=True)
        ]
    whole = ((hidden, shape.query_size),)
    local, hf_output = "self_attention.linear_proj", "self_attn.o_proj"
    table.append(Weight(f"{local}.weight", (f"{hf_output}.weight",), "columns", whole, "attention"))
    if shape.biases:
        table.append(Weight(f"{local}.bias", (f"{hf_output}.bias",), "replicated", ((hidden,),), "attention"))
    if shape.sinks:
        heads, sinks = ((shape.num_attention_heads,),), "self_attention.core_attention.sinks"
        table.append(Weight(sinks, ("self_attn.sinks",), "rows", heads, "attention"))
    return table


def latent_attention(shape: ModelShape, latent: LatentAttention) -> list[Weight]:
    """Queries, and keys with values, each by way of few numbers and a norm, and the output."""

    def line(local: str, hf: str, kind: Kind, rows: int, columns: int) -> Weight:
        names = (f"self_attn.{hf}.weight",)
        return Weight(f"self_attention.{local}.weight", names, kind, ((rows, columns),), "attention")

    hidden, heads = shape.hidden_size, shape.num_attention_heads
    queries = [line("linear_q", "q_proj", "rows", shape.query_size, hidden)]
    if latent.query_rank:
        queries = [
            line("linear_q_down", "q_a_proj", "replicated", latent.query_rank, hidden),
            norm("self_attention.q_layernorm", "self_attn.q_a_layernorm", latent.query_rank, "attention"),
            line("linear_q_up", "q_b_proj", "rows", shape.query_size, latent.query_rank),
        ]
    kept = shape.head_dim - latent.rotary_dim
    return [
        *queries,
        line("linear_kv_down", "kv_a_proj_with_mqa", "replicated", latent.rank + latent.rotary_dim, hidden),
        norm("self_attention.kv_layernorm", "self_attn.kv_a_layernorm", latent.rank, "attention"),
        line("linear_kv_up", "kv_b_proj", "rows", heads * (kept + latent.value_dim), latent.rank),
        line("linear_proj", "o_proj", "columns", hidden, heads * latent.value_dim),
    ]


def delta_net(shape: ModelShape, delta: DeltaNet) -> list[Weight]:
    """Projections of query, key, value and gate, and of strength and decay; the sum over tokens, the pace of the
    decay, the norm of what is read from the state, and the output.
    """

    def line(local: str, hf: str, kind: Kind, *whole: int) -> Weight:
        return Weight(f"self_attention.{local}", (f"linear_attn.{hf}",), kind, (whole,), "attention")

    together = {"qkv": delta.mixed, "qkvz": (*delta.mixed, delta.value_size)}

    def projection(name: str, rows: int) -> Weight:
        kind: Kind = "by_head" if name == "qkv" else "rows"
        found = line(f"linear_{name}.weight", f"in_proj_{name}.weight", kind, rows, shape.hidden_size)
        return replace(found, unpacked=name in PER_HEAD, side_by_side=together.get(name, ()))

    return [
        *(projection(name, rows) for name, rows in delta.projections.items()),
        line("before.taps", "conv1d.weight", "by_head", sum(delta.mixed), 1, delta.taps),
        line("pace.bias", "dt_bias", "rows", delta.value_heads),
        line("pace.log", "A_log", "rows", delta.value_heads),
        norm("self_attention.read_norm", "linear_attn.norm", delta.value_dim, "attention"),
        line("linear_proj.weight", "out_proj.weight", "columns", shape.hidden_size, delta.value_size),
    ]


def feed_forward(
    hidden: int, width: int, local: str = "mlp", hf: str = "mlp", names: Sequence[str] = PROJECTIONS
) -> list[Weight]:
    """Gate, up and down projection, which `names` are in HuggingFace's files."""
    up_shape, down_shape = (width, hidden), (hidden, width)
    gate, up, down = (f"{hf}.{name}.weight" for name in names)
    return [
        Weight(f"{local}.linear_fc1.weight", (gate, up), "gate_up", (up_shape, up_shape), "feed-forward"),
        Weight(f"{local}.linear_fc2.weight", (down,), "columns", (down_shape,), "feed-forward"),
    ]


def experts(
    shape: ModelShape,
    hf: str = "mlp",
    bias: str = "gate.e_score_correction_bias",
    names: Sequence[str] = PROJECTIONS,
    shared: str = SHARED,
    *,
    stacked: bool = False,
) -> list[Weight]:
    """The router, a feed-forward for each expert and, where the shape has it, one for all tokens.

    Args:
        hf: what HuggingFace's names of them begin with.
        bias: the router's there, where it has one.
        names: an expert's projections there.
        shared: what the names of the feed-forward of all tokens begin with there.
        stacked: whether files may hold the experts of a layer as `gate_up_proj` and `down_proj`.
    """
    hidden, router = shape.hidden_size, ((shape.num_experts, shape.hidden_size),)
    table = [Weight("mlp.router.weight", (f"{hf}.gate.weight",), "replicated", router, "router")]
    if shape.router is not None:
        numbers = ((shape.num_experts,),)
        table.append(Weight("mlp.router.expert_bias", (f"{hf}.{bias}",), "replicated", numbers, "router", fixed=True))
    each = feed_forward(hidden, shape.ffn_hidden_size, f"mlp.{EXPERTS}{{place}}", f"{hf}.experts.{{expert}}", names)
    if stacked:
        each = [
            replace(one, stacked=f"{hf}.experts.{name}")
            for one, name in zip(each, ("gate_up_proj", "down_proj"), strict=True)
        ]
    table += each
    if shape.shared_ffn_hidden_size:
        if shape.shared_gate:
            table.append(
                Weight(f"{SHARED}.gate_weight", (f"{shared}_gate.weight",), "replicated", ((1, hidden),), "router")
            )
        table += feed_forward(hidden, shape.shared_ffn_hidden_size, SHARED, shared)
    return table


def experts_in_one(shape: ModelShape, hf: str = "mlp") -> list[Weight]:
    """The router and the experts, all with biases; one tensor of the files holds a projection of all experts, with
    columns as rows, and gate and up by turns.
    """
    hidden, width, number = shape.hidden_size, shape.ffn_hidden_size, shape.num_experts

    def line(local: str, name: str, kind: Kind, *size: int) -> Weight:
        part = (f"{hf}.experts.{name}[{{expert}}]",)
        return Weight(f"mlp.{EXPERTS}{{place}}.{local}", part, kind, (size,), "feed-forward")

    return [
        Weight("mlp.router.weight", (f"{hf}.router.weight",), "replicated", ((number, hidden),), "router"),
        Weight("mlp.router.bias", (f"{hf}.router.bias",), "replicated", ((number,),), "router"),
        line("linear_fc1.weight", "gate_up_proj", "by_turns", hidden, 2 * width),
        line("linear_fc1.bias", "gate_up_proj_bias", "by_turns", 2 * width),
        line("linear_fc2.weight", "down_proj", "turned", width, hidden),
        line("linear_fc2.bias", "down_proj_bias", "replicated", hidden),
    ]
