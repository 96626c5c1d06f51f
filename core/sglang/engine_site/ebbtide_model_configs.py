"""A plugin for SGLang (0.5.21): configs that transformers has no class for, so that none of a model's own code is run.

SGLang has MiMo's layers, and asks transformers for its config.json, which knows it by the publisher's code alone.
The entry point in ebbtide_engine_site-1.dist-info makes SGLang load this in every process, ahead of the model's files.
"""

from __future__ import annotations


def register() -> None:
    """Make transformers know MiMo's config: Qwen2's by another name."""
    from transformers import AutoConfig, Qwen2Config

    class MiMoConfig(Qwen2Config):  # type: ignore[misc]
        model_type = "mimo"

    AutoConfig.register(MiMoConfig.model_type, MiMoConfig, exist_ok=True)
