"""Qwen3: norms over each head of query and key, and a head dim of its own."""

from __future__ import annotations

from typing import Any

from modelcfg.family import HEAD_DIM, Config, Family, or_default


def fields(config: Config) -> dict[str, Any]:
    """What Qwen3 has in common with and without experts."""
    return {"qk_norm": True, "head_dim": or_default(config, "head_dim", HEAD_DIM)}


FAMILY = Family("qwen3", "Qwen3ForCausalLM", fields=fields)
