"""Datasets of reasoning_gym, made from what a run file can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMPOSITE = "composite"  # made of others, each a mapping with name, weight and config


def gym_dataset(name: str, options: Mapping[str, Any]) -> Any:
    """The dataset of that name with these options, as plain values.

    Raises:
        Exception: whatever reasoning_gym says of options that it does not take.
    """
    import reasoning_gym
    from reasoning_gym.composite import DatasetSpec

    if name == COMPOSITE and isinstance(options.get("datasets"), list):
        parts = [DatasetSpec(**{"weight": 1.0, "config": {}, **part}) for part in options["datasets"]]
        options = {**options, "datasets": parts}
    return reasoning_gym.create_dataset(name, **options)
