"""Model shapes as data: one YAML per model, checks against a HuggingFace `config.json`, parameter counts. No torch."""

from __future__ import annotations

from common.nearest import nearest
from modelcfg.catalogue import UnknownModelError, load, load_hub, names
from modelcfg.huggingface import Mismatch, compare, decoder_config, from_hf, nearest_entries
from modelcfg.shape import (
    DeltaNet,
    LatentAttention,
    LinearScaling,
    ModelShape,
    RopeScaling,
    SigmoidRouter,
    Window,
    YarnScaling,
)
from modelcfg.size import active_parameters, num_parameters, parameter_parts
from modelcfg.tensors import (
    fixed_tensors,
    hf_tensors,
    is_carried,
    largest_tensor,
    matrices,
    matrix_elements,
    matrix_rows,
    other_linears,
    stacks,
)
from modelcfg.unsupported import UnsupportedModelError

__all__ = [
    "DeltaNet",
    "LatentAttention",
    "LinearScaling",
    "Mismatch",
    "ModelShape",
    "RopeScaling",
    "SigmoidRouter",
    "UnknownModelError",
    "UnsupportedModelError",
    "Window",
    "YarnScaling",
    "active_parameters",
    "compare",
    "decoder_config",
    "fixed_tensors",
    "from_hf",
    "hf_tensors",
    "is_carried",
    "largest_tensor",
    "load",
    "load_hub",
    "matrices",
    "matrix_elements",
    "matrix_rows",
    "names",
    "nearest",
    "nearest_entries",
    "num_parameters",
    "other_linears",
    "parameter_parts",
    "stacks",
]
