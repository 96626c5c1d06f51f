"""One engine, from the run file: its weights, its KV cache, and what a weight sync brings."""

from __future__ import annotations

from core.config.layout import engine_nodes, running_requests, share_gpus
from core.config.schema import RunConfig
from core.planner.drafting import drafting_shape
from core.planner.trainer import element_bytes
from core.pretrained.few_bits import FEW_BITS
from core.sglang import engine_sizes
from core.sglang.attention_groups import attention_groups, whole_output_layer
from core.sglang.engine_sizes import BUCKET_BYTES, EngineFacts, KvCache
from core.sglang.launch import MAX_GRAPH_BATCH
from core.sglang.speculation import draft_graph_bytes, index_bytes, tokens_at_once, verify_bytes
from modelcfg import ModelShape, largest_tensor, num_parameters

__all__ = ["KvCache", "bucket_bytes", "cache", "draft_bytes", "forward_bytes", "parked_bytes", "part_bytes"]

BUCKETS = 3  # two that engines take in turns, and the tensors that are gathered for the next


def part_bytes(config: RunConfig, shape: ModelShape, device: str, kv: KvCache) -> dict[str, int]:
    """Part -> bytes on each GPU of an engine (CPU: on each of its nodes). Graphs are counted with the process."""
    return {
        "weights": weight_bytes(config, shape, device) + drafting_bytes(config, device),
        "kv_cache": kv.num_bytes,
        "cuda_graph": 0,
    }


def weight_bytes(config: RunConfig, shape: ModelShape, device: str) -> int:
    """Bytes of the weights that it computes with."""
    return engine_sizes.weight_bytes(_facts(config, shape, device))


def drafting_bytes(config: RunConfig, device: str) -> int:
    """Bytes of the weights of a model that drafts for it."""
    drafting = drafting_shape(config)
    return 0 if drafting is None else engine_sizes.drafting_bytes(_facts(config, drafting, device))


def parked_bytes(config: RunConfig, device: str) -> int:
    """Bytes of a node's host where these wait while engines have given their memory back."""
    ranks = config.placement.engines_per_node * share_gpus(config.placement)
    return ranks * drafting_bytes(config, device)


def cache(config: RunConfig, shape: ModelShape, device: str, gpu_bytes: int) -> KvCache:
    """KV cache of one engine."""
    placement, engine = config.placement, _facts(config, shape, device)
    if device == "cpu":
        return engine_sizes.cpu_cache(engine, placement.engine_max_total_tokens)
    static_bytes = int(placement.engine_memory_fraction * gpu_bytes)
    return engine_sizes.gpu_cache(engine, static_bytes, placement.engine_max_total_tokens)


def forward_bytes(config: RunConfig, shape: ModelShape, device: str) -> int:
    """Bytes while prompts are read, those of all samples at once or a chunk of them, or while drafts are verified."""
    samples = running_requests(config, device)
    reading = engine_sizes.forward_bytes(_facts(config, shape, device), samples * config.data.max_prompt_tokens)
    drafted = tokens_at_once(config.placement.engine_options)
    return reading if drafted == 1 else max(reading, verify_bytes(samples * drafted, shape.vocab_size))


def draft_bytes(config: RunConfig, shape: ModelShape, device: str) -> int:
    """Bytes that an engine keeps in every phase for drafts of its samples; 0 without speculative decoding."""
    drafted = tokens_at_once(config.placement.engine_options)
    samples = min(running_requests(config, device), MAX_GRAPH_BATCH)
    if drafted == 1:
        return 0
    verifying = index_bytes(samples * drafted, shape.max_position_embeddings)
    if drafting_shape(config) is None:
        return verifying
    return verifying + draft_graph_bytes(samples, drafted, shape.max_position_embeddings, shape.vocab_size)


def bucket_bytes(config: RunConfig, shape: ModelShape, device: str) -> int:
    """Bytes of a weight sync's buckets on the trainer's side. A tensor larger than a bucket has a bucket of its own."""
    size = element_bytes(config, device)
    largest = largest_tensor(shape) * size
    return min(BUCKETS * max(BUCKET_BYTES, largest), num_parameters(shape) * size * BUCKETS)


def _facts(config: RunConfig, shape: ModelShape, device: str) -> EngineFacts:
    placement, options = config.placement, config.placement.engine_options
    return EngineFacts(
        shape,
        element_bytes(config, device),
        split=placement.engine_tensor_parallel if device == "cuda" else engine_nodes(placement),
        groups=attention_groups(options),
        whole_output=whole_output_layer(options),
        few_bits=FEW_BITS.get(placement.engine_weights),
        kv_bytes=1 if str(options.get("kv_cache_dtype", "")).startswith("fp8") else None,
        drafting=drafting_shape(config),
    )
