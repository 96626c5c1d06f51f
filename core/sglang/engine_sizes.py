"""Bytes of an engine on each of its GPUs, from the model's shape: what its server will make of its settings. No torch.

SGLang gives a share of the GPU (`--mem-fraction-static`) to weights and KV cache together; beside it are the forward
pass of a chunk of prompts, and what the process itself takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.pretrained.few_bits import FewBits
from core.sglang.launch import CPU_TOTAL_TOKENS
from modelcfg import ModelShape, matrix_elements, num_parameters, parameter_parts

BUCKET_BYTES = 1024 * 2**20  # of weights on their way into an engine; two of them are in use at a time
FACTOR_BYTES = 4  # of weights in few bits
KV_SHARE = 1 / 1.9  # of what weights leave, where states take the rest (SGLang's mamba_full_memory_ratio)
PREFILL_TOKENS = 8192  # SGLang's chunk of prompts on a GPU of 80 GB; smaller on smaller ones


@dataclass(frozen=True)
class EngineFacts:
    """What bytes of an engine follow from.

    Attributes:
        element_bytes: of a number of its weights, where it is not in few bits.
        split: ranks over which weights are cut; on CPUs, where those of a node use the same memory, nodes.
        groups: of ranks, each with the whole attention and embedding, for samples of its own.
        whole_output: each of these with the whole output layer, too.
        few_bits: what linear layers are in, a byte each, with factors in float32; None: as all else.
        kv_bytes: of a number in the cache of a GPU; None: as of others.
        drafting: the shape of a model that drafts; None: none does.
    """

    shape: ModelShape
    element_bytes: int
    split: int = 1
    groups: int = 1
    whole_output: bool = False
    few_bits: FewBits | None = None
    kv_bytes: int | None = None
    drafting: ModelShape | None = None


@dataclass(frozen=True)
class KvCache:
    """The cache of one engine, without the states of delta nets.

    Attributes:
        tokens: of all groups of its ranks.
        token_bytes: of one token on one of its GPUs, or, where a node's ranks share its memory, on the node.
        groups: of ranks on GPUs of their own, each with a cache for its own samples.
    """

    tokens: int
    token_bytes: int
    groups: int = 1

    @property
    def num_bytes(self) -> int:
        """Bytes on each of the engine's GPUs."""
        return self.tokens // self.groups * self.token_bytes

    def samples(self, sample_tokens: int) -> int:
        """Number of samples of this size, prompt included, that fit at once; a shared prompt counts each time."""
        return self.groups * (self.tokens // self.groups // sample_tokens)


def weight_bytes(engine: EngineFacts) -> int:
    """Bytes on each of the engine's GPUs; norms, routers and what makes few numbers of a token are on all of them."""
    shape = engine.shape
    parts, made = parameter_parts(shape), _of_few_numbers(shape)
    whole, few = parts["norms"] + parts.get("router", 0), made
    if shape.latent is not None:  # their norms
        few += shape.num_layers * (shape.latent.query_rank + shape.latent.rank)
    repeated = (engine.groups - 1) * (parts["attention"] - few)
    packed = made + (matrix_elements(shape) - made + repeated) // engine.split if engine.few_bits else 0
    of_words = parts["embedding"] + (parts["output"] if engine.whole_output else 0)
    cut = num_parameters(shape) - whole - few + repeated + (engine.groups - 1) * of_words
    rest = whole + few + -(-cut // engine.split) - packed
    factors = engine.few_bits.scheme.num_factors(shape, packed, engine.split) if engine.few_bits else 0
    return rest * engine.element_bytes + packed + factors * FACTOR_BYTES


def drafting_bytes(engine: EngineFacts) -> int:
    """Bytes on each of the engine's GPUs of the weights of a model that drafts: it is cut over all ranks."""
    if engine.drafting is None:
        return 0
    return weight_bytes(EngineFacts(engine.drafting, engine.element_bytes, engine.split))


def _of_few_numbers(shape: ModelShape) -> int:
    """Elements of the matrices that make few numbers of a token."""
    if shape.latent is None:
        return 0
    return (
        shape.num_layers * shape.hidden_size * (shape.latent.query_rank + shape.latent.rank + shape.latent.rotary_dim)
    )


def kv_token_bytes(shape: ModelShape, element_bytes: int, tensor_parallel: int) -> int:
    """A key and a value per layer that has attention; more ranks than groups hold copies of a group. With latent
    attention what both are made of, on every rank.
    """
    if shape.latent is not None:
        return shape.num_layers * (shape.latent.rank + shape.latent.rotary_dim) * element_bytes
    groups = max(1, shape.num_query_groups // tensor_parallel)
    layers = sum(not shape.has_state(layer) for layer in range(shape.num_layers))
    return 2 * layers * groups * shape.head_dim * element_bytes


def gpu_cache(engine: EngineFacts, static_bytes: int, max_tokens: int | None) -> KvCache:
    """What the engine's share of the GPU leaves beside the weights; no more than `max_tokens`, no less than nothing.

    A model that drafts has a place for each token, too. SGLang counts its layers as if they were the model's own.

    Args:
        max_tokens: of each group.
    """
    groups = engine.groups
    token = kv_token_bytes(engine.shape, engine.kv_bytes or engine.element_bytes, engine.split // groups)
    counted = token
    if (drafting := engine.drafting) is not None:
        counted = int(token * (1 + drafting.num_layers / engine.shape.num_layers))
        token += kv_token_bytes(drafting, engine.kv_bytes or engine.element_bytes, engine.split)
    left = max(0, static_bytes - weight_bytes(engine) - drafting_bytes(engine))
    room = int(left * (1 if engine.shape.delta is None else KV_SHARE)) // counted
    return KvCache(groups * (room if max_tokens is None else min(room, max_tokens)), token, groups)


def cpu_cache(engine: EngineFacts, max_tokens: int | None) -> KvCache:
    """The cache on CPUs, where each group of ranks has a fixed number of tokens, which nodes share out."""
    token = kv_token_bytes(engine.shape, engine.element_bytes, engine.split)
    return KvCache(engine.groups * (max_tokens or CPU_TOTAL_TOKENS), token)


def forward_bytes(engine: EngineFacts, max_tokens: int) -> int:
    """The widest moment of a chunk of prompts: gate, up and their product, and what each chosen expert makes of it."""
    shape, chosen = engine.shape, max(1, engine.shape.experts_per_token)
    width = chosen * (3 * shape.ffn_hidden_size // engine.split + shape.hidden_size) + shape.hidden_size
    return min(PREFILL_TOKENS, max_tokens) * width * engine.element_bytes
