"""GLM-4."""

from sglang.srt.models.glm4 import Glm4ForCausalLM

EntryClass = [Glm4ForCausalLM]
