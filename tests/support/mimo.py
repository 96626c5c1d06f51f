"""MiMo-7B in transformers, which has no class for it: its publisher's own code derives it from Qwen2, unchanged.

Left out: the heads for several tokens, which that code computes for no log-prob.
"""

from __future__ import annotations

from functools import cache


@cache
def register() -> type:
    """Make transformers know config and model; the class of the config."""
    from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

    class MiMoConfig(Qwen2Config):
        model_type = "mimo"

    class MiMoForCausalLM(Qwen2ForCausalLM):
        config_class = MiMoConfig

    AutoConfig.register("mimo", MiMoConfig)
    AutoModelForCausalLM.register(MiMoConfig, MiMoForCausalLM)
    return MiMoConfig
