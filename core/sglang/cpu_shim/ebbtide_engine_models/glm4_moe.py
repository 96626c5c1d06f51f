"""GLM-4.5 to 4.7."""

from sglang.srt.models.glm4_moe import Glm4MoeForCausalLM

EntryClass = [Glm4MoeForCausalLM]
