"""Qwen3 with experts."""

from sglang.srt.models.qwen3_moe import Qwen3MoeForCausalLM

EntryClass = [Qwen3MoeForCausalLM]
