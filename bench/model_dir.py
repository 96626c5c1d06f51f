"""A HuggingFace directory of a known shape without weights: right names, shapes and sizes, all zeros, no disk space."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import modelcfg
from modelcfg import ModelShape
from modelcfg.families import families

BF16_BYTES = 2


def known_shape(name: str) -> ModelShape:
    """One of the known shapes; NAME:LAYERS has the first of its layers only."""
    name, _, layers = name.partition(":")
    shape = modelcfg.load(name)
    return shape.model_copy(update={"num_layers": int(layers)}) if layers else shape


def write_model_dir(name: str, directory: Path) -> Path:
    """Write config.json and a sparse model.safetensors of one of the known shapes."""
    shape = known_shape(name)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(hf_config(shape), indent=1))
    header: dict[str, Any] = {}
    offset = 0
    for tensor, size in modelcfg.hf_tensors(shape).items():
        end = offset + math.prod(size) * BF16_BYTES
        header[tensor] = {"dtype": "BF16", "shape": list(size), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
    return directory


def hf_config(shape: ModelShape) -> dict[str, Any]:
    """The config.json of a shape."""
    experts: dict[str, Any] = {}
    if shape.num_experts:
        experts = {
            "num_experts": shape.num_experts,
            "num_experts_per_tok": shape.experts_per_token,
            "moe_intermediate_size": shape.ffn_hidden_size,
            "norm_topk_prob": True,
        }
    return {
        "architectures": [families()[shape.architecture].hf_class],
        "model_type": shape.architecture,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_query_groups,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": 8192,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "tie_word_embeddings": shape.tied_embeddings,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
        **experts,
    }
