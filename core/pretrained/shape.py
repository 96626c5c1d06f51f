"""The shape of the model that a run trains: from the catalogue where it is named, else from its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import modelcfg
from core.config.sections.model import ModelConfig
from modelcfg import ModelShape


def model_shape(config: ModelConfig, model_dir: Path) -> ModelShape:
    """Shape of the model at `model_dir`.

    Raises:
        ValueError: if the named model's shape and the checkpoint's config.json differ; all differences are listed.
    """
    hf_config = json.loads((model_dir / "config.json").read_text())
    if config.name is None:
        return modelcfg.from_hf(hf_config)
    shape = modelcfg.load(config.name)
    mismatches = modelcfg.compare(shape, hf_config)
    if mismatches:
        listed = "; ".join(f"{m.field}: {m.found} in config.json, {m.wanted} in the catalogue" for m in mismatches)
        raise ValueError(f"model.name = {config.name} does not describe {model_dir}: {listed}")
    return shape
