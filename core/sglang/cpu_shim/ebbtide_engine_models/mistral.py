"""Mistral, which SGLang computes as Llama."""

from sglang.srt.models.mistral import MistralForCausalLM

EntryClass = [MistralForCausalLM]
