"""MiMo-7B."""

from sglang.srt.models.mimo import MiMoForCausalLM

EntryClass = [MiMoForCausalLM]
