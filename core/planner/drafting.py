"""The model that drafts for an engine (`speculative_algorithm: STANDALONE`): its shape, from its directory."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import modelcfg
from core.config.schema import RunConfig
from core.sglang.speculation import draft_model
from modelcfg import ModelShape


def drafting_shape(config: RunConfig) -> ModelShape | None:
    """Shape of the model; None: none drafts, or it cannot be read here, which `core.checks.draft_model` reports."""
    path = draft_model(config.placement.engine_options)
    return _shape(path) if path and config.placement.engines != "none" else None


@cache
def _shape(path: str) -> ModelShape | None:
    try:
        return modelcfg.from_hf(json.loads((Path(path) / "config.json").read_bytes()))
    except (OSError, ValueError):
        return None
