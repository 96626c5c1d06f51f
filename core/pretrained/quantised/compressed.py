"""What compressed-tensors, which has several schemes, says of a model's weights in config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FACTOR = "_scale"  # behind a weight's name: the factors of its rows, or of all of it


def kind_of_weights(settings: Mapping[str, Any], form: str) -> Mapping[str, Any] | None:
    """How the weights of a model in this format are kept, where all are kept alike and around zero; None: otherwise.

    Activations may be quantised as they come, which is the engine's affair; with scales of their own in the files the
    model was made for these.
    """
    groups = list((settings.get("config_groups") or {}).values())
    if settings.get("format") != form or len(groups) != 1 or settings.get("kv_cache_scheme"):
        return None
    weights: Mapping[str, Any] = groups[0].get("weights") or {}
    activations = groups[0].get("input_activations")
    if weights.get("symmetric") is not True or (activations and activations.get("dynamic") is not True):
        return None
    return weights
