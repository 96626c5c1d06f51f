"""Llama, and SmolLM2, which is published as one."""

from __future__ import annotations

from modelcfg.family import Family

FAMILY = Family("llama", "LlamaForCausalLM", no_attention_groups=True)
