"""GLM-4.7-Flash."""

from sglang.srt.models.glm4_moe_lite import Glm4MoeLiteForCausalLM

EntryClass = [Glm4MoeLiteForCausalLM]
