"""Bytes of experts that are replayed (`algorithm.routing_replay`): on a node's host, in a row, in a step's file."""

from __future__ import annotations

from core.config.layout import share_gpus
from core.config.schema import RunConfig
from core.planner.engine import KvCache
from core.planner.trainer import largest_row
from core.samples import BYTE
from modelcfg import ModelShape

ROW_BYTES = 2  # of an expert in a row
ENGINE_BYTES = 4  # in an engine, which has room for those of every token of its KV cache


def node_bytes(config: RunConfig, shape: ModelShape, cache: KvCache | None) -> int:
    """Host memory of a node: each trainer rank has the experts of all samples of a step until the update ends.

    Of the engine's, the first rank makes the step's file in memory, too: as they are, and as they are written.
    """
    kind, placement = config.algorithm.routing_replay, config.placement
    if kind == "none":
        return 0
    of_engine = kind == "engine"
    ranks = placement.trainers_per_node + 2 * of_engine
    servers = placement.engines_per_node * share_gpus(placement) if of_engine and cache is not None else 0
    of_servers = servers * (cache.tokens if cache else 0) * _token_experts(shape) * ENGINE_BYTES
    return ranks * step_bytes(config, shape) + of_servers


def row_bytes(config: RunConfig, shape: ModelShape) -> int:
    """Device memory for those of the largest row, of all layers on every stage."""
    if config.algorithm.routing_replay == "none":
        return 0
    return largest_row(config).tokens * _token_experts(shape) * ROW_BYTES


def step_bytes(config: RunConfig, shape: ModelShape) -> int:
    """Bytes for the longest samples of a step."""
    rollout = config.rollout
    samples = rollout.rollout_batch_size * rollout.n_samples_per_prompt
    return samples * config.sample_tokens * _token_experts(shape) * (1 if shape.num_experts <= BYTE else 2)


def _token_experts(shape: ModelShape) -> int:
    """Number of experts of a token in all layers."""
    return shape.num_layers * shape.experts_per_token
