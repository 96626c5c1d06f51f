"""Llama, and SmolLM2, which is published as one."""

from __future__ import annotations

from modelcfg.family import Family

NOT_IN_FP8 = "of which SGLang looks for the factors of blocks under a name that its own layers do not have"

FAMILY = Family("llama", "LlamaForCausalLM", not_in_fp8=NOT_IN_FP8, no_attention_groups=True)
