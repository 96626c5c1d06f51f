"""Scaling of rotary positions, from the settings of a HuggingFace `config.json`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from modelcfg.shape import LinearScaling, RopeScaling, YarnScaling
from modelcfg.unsupported import UnsupportedModelError

Settings = Mapping[str, Any]
Scaling = RopeScaling | YarnScaling | LinearScaling
# the waves of all tokens change when a sequence grows over a border, so those of the trainer cannot be the engine's
CHANGING = ("dynamic", "longrope", "su")


def rope_scaling(rope: Settings, config: Settings) -> Scaling | None:
    """The scaling that the rotary settings ask for; None: none.

    Raises:
        UnsupportedModelError: it is of another kind, or incomplete.
    """
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind in CHANGING:
        found = f"rope scaling of type {kind}, which turns all tokens otherwise when a sequence grows long"
        raise UnsupportedModelError(found, f"use a model with default or {', '.join(KINDS)}")
    if kind not in KINDS:
        raise UnsupportedModelError(f"rope scaling of type {kind}", f"use a model with default or {', '.join(KINDS)}")
    needed, make = KINDS[kind]
    missing = [key for key in needed if rope.get(key) is None]
    if missing:
        found = f"rope scaling {kind} without {', '.join(missing)} in config.json"
        raise UnsupportedModelError(found, "take the file from the publisher")
    return make(rope, config)


def sharpening(factor: float, weight: float = 1.0) -> float:
    """How much sharper attention is to be over a context that is `factor` times as long: YaRN's section 3.4."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _llama3(rope: Settings, _: Settings) -> Scaling:
    return RopeScaling(**{key: rope[key] for key in RopeScaling.model_fields})


def _linear(rope: Settings, _: Settings) -> Scaling:
    return LinearScaling(factor=rope["factor"])


def _yarn(rope: Settings, config: Settings) -> Scaling:
    """The quotient of `mscale` and `mscale_all_dim`, if both are given, sharpens the turned channels; with latent
    attention the second sharpens the logits as well.
    """
    factor, of_turned, of_all = rope["factor"], rope.get("mscale"), rope.get("mscale_all_dim")
    attention = rope.get("attention_factor")
    if attention is None:
        attention = sharpening(factor)
        if of_turned and of_all:
            attention = sharpening(factor, of_turned) / sharpening(factor, of_all)
    is_latent = config.get("kv_lora_rank") is not None
    return YarnScaling(
        factor=factor,
        original_max_position_embeddings=rope["original_max_position_embeddings"],
        beta_fast=rope.get("beta_fast") or 32,
        beta_slow=rope.get("beta_slow") or 1,
        truncate=rope.get("truncate", True),
        attention_factor=attention,
        logit_factor=sharpening(factor, of_all) ** 2 if of_all and is_latent else 1.0,
    )


# type → the settings that it needs, and what makes it
KINDS: dict[str, tuple[tuple[str, ...], Callable[[Settings, Settings], Scaling]]] = {
    "linear": (("factor",), _linear),
    "llama3": (tuple(RopeScaling.model_fields), _llama3),
    "yarn": (("factor", "original_max_position_embeddings"), _yarn),
}
