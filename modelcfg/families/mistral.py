"""Mistral without a window (7B from v0.3 on, Nemo, Small): Llama, but for heads of a width of their own."""

from __future__ import annotations

from modelcfg.family import Config, Family

WINDOW = 4096  # where config.json does not say, as transformers has it


def _refused(config: Config) -> dict[str, bool]:
    return {"sliding_window": config.get("sliding_window", WINDOW) is not None}


FAMILY = Family("mistral", "MistralForCausalLM", refused=_refused, no_attention_groups=True)
