"""Model shapes as data: one YAML per model, checks against a HuggingFace `config.json`, parameter counts. No torch."""

from __future__ import annotations

from common.nearest import nearest
from modelcfg.catalogue import UnknownModelError, load, load_hub, names
from modelcfg.huggingface import Mismatch, UnsupportedModelError, compare, from_hf, nearest_entries
from modelcfg.shape import ModelShape, RopeScaling, SigmoidRouter
from modelcfg.size import active_parameters, num_parameters, parameter_parts
from modelcfg.tensors import fixed_tensors, hf_tensors, is_carried

__all__ = [
    "Mismatch",
    "ModelShape",
    "RopeScaling",
    "SigmoidRouter",
    "UnknownModelError",
    "UnsupportedModelError",
    "active_parameters",
    "compare",
    "fixed_tensors",
    "from_hf",
    "hf_tensors",
    "is_carried",
    "load",
    "load_hub",
    "names",
    "nearest",
    "nearest_entries",
    "num_parameters",
    "parameter_parts",
]
