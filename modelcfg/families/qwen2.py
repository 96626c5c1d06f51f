"""Qwen2 and Qwen2.5: biases on query, key and value, whatever `attention_bias` says."""

from __future__ import annotations

from typing import Any

from modelcfg.family import Config, Family


def fields(_: Config) -> dict[str, Any]:
    """What sets these layers apart from Llama's."""
    return {"qkv_bias": True}


def refused(_: Config) -> dict[str, bool]:
    """No refusal of `attention_bias`: none of them has a bias on the output projection."""
    return {"attention_bias": False}


FAMILY = Family("qwen2", "Qwen2ForCausalLM", fields=fields, refused=refused, no_attention_groups=True)
