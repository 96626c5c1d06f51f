"""A plugin for SGLang: what its model configs lack for the models that are trained here.

The entry point in ebbtide_engine_site-1.dist-info makes SGLang load this in every process, ahead of the model's files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

READ = "sglang.srt.configs.model_config.ModelConfig.__init__"


def register() -> None:
    """Mend all three."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    know_mimo()
    keep_what_a_part_says()
    HookRegistry.register(READ, name_the_engines_dtype, HookType.AFTER)


def know_mimo() -> None:
    """Make transformers know MiMo's config: Qwen2's by another name.

    SGLang (0.5.21) has its layers, and asks transformers, which knows it by the publisher's code alone: none is run.
    """
    from transformers import AutoConfig, Qwen2Config

    class MiMoConfig(Qwen2Config):  # type: ignore[misc]
        model_type = "mimo"

    AutoConfig.register(MiMoConfig.model_type, MiMoConfig, exist_ok=True)


def keep_what_a_part_says() -> None:
    """Let an override of one setting of a config's part leave the part's others alone.

    SGLang 0.5.16 puts the given mapping in the place of the whole part, as the decoder of Qwen3.5 is; 0.5.21 does not.
    """
    from transformers import PreTrainedConfig

    replace = PreTrainedConfig.update

    def update(config: Any, changes: Mapping[str, Any]) -> None:
        for name, change in changes.items():
            part = getattr(config, name, None)
            if isinstance(part, PreTrainedConfig) and isinstance(change, Mapping):
                update(part, change)
            else:
                replace(config, {name: change})

    PreTrainedConfig.update = update


def name_the_engines_dtype(result: Any, config: Any, *_: Any, **__: Any) -> Any:
    """Let a config name the precision that the engine computes in, whatever the one of its files is.

    SGLang gives most layers the engine's, but routers of gpt-oss and a norm of Qwen3-Next the config's: files in
    float32 and an engine in bfloat16 met in one product, which failed.
    """
    config.hf_config.dtype = config.hf_text_config.dtype = config.dtype
    return result
