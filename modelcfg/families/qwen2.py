"""Qwen2 and Qwen2.5: biases on query, key and value, whatever `attention_bias` says."""

from __future__ import annotations

from typing import Any

from modelcfg.family import Config, Family


def _fields(_: Config) -> dict[str, Any]:
    return {"qkv_bias": True}


def _refused(_: Config) -> dict[str, bool]:
    return {"attention_bias": False}


FAMILY = Family("qwen2", "Qwen2ForCausalLM", fields=_fields, refused=_refused)
