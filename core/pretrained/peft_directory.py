"""Adapters as a directory that PEFT reads: adapter_config.json and adapter_model.safetensors.

Source: https://huggingface.co/docs/peft/developer_guides/checkpoint. Base model and tokenizer are not in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from core.config.sections.lora import LoraConfig
from core.pretrained.weight_files import ADAPTER

WEIGHTS = "adapter_model.safetensors"


def write_peft(
    directory: Path, tensors: Mapping[str, Tensor], lora: LoraConfig, targets: Sequence[str], base: str
) -> Path:
    """Write both files; the one with the weights.

    Args:
        directory: is there.
        tensors: every A and B under PEFT's names.
        targets: PEFT's names of the layers that have an adapter.
        base: path or name of the model that the adapters belong to.
    """
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.scale * lora.rank,
        "target_modules": list(targets),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (directory / ADAPTER).write_text(json.dumps(settings, indent=2) + "\n")
    save_file(dict(tensors), directory / WEIGHTS, {"format": "pt"})
    return directory / WEIGHTS
